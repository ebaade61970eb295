"""An adapter some of whose settings are those of a call's config."""

from __future__ import annotations

from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import Input, Output


class ConfigurableAdapter(RunnableConfigurableFields[Input, Output]):
    """Passes settings on as LangChain does, but leaves those unset that weren't set.

    LangChain makes a new step with all fields of the first, set or not, and then an option that
    nobody set would override the pruner's.
    """

    def _prepare(
        self, config: RunnableConfig | None = None
    ) -> tuple[Runnable[Input, Output], RunnableConfig]:
        step, prepared = super()._prepare(config)
        if step is self.default:
            return step, prepared
        ids = prepared.get("configurable", {})
        configured = {
            name: getattr(step, name)
            for name, field in self.fields.items()
            if not isinstance(field, ConfigurableField) or field.id in ids
        }
        return self.default.with_settings(**configured), prepared  # type: ignore[attr-defined]
