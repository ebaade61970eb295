"""What LangChain's own machinery asks of an adapter: settings that are written, or of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import Input, Output

if TYPE_CHECKING:
    from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
    from langchain_core.runnables import (
        ConfigurableFieldMultiOption,
        ConfigurableFieldSingleOption,
    )

    AnyConfigurableField = (
        ConfigurableField | ConfigurableFieldSingleOption | ConfigurableFieldMultiOption
    )


class Configurable:
    """Mixed into an adapter that is a runnable."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: `dumpd` writes the settings, and `load` reads them."""
        return True

    def to_json(self: Any) -> SerializedConstructor | SerializedNotImplemented:
        """Return the settings that were set, as LangChain writes them."""
        return {"lc": 1, "type": "constructor", "id": self.lc_id(), "kwargs": self.written()}

    def configurable_fields(
        self: Any, **kwargs: AnyConfigurableField
    ) -> ConfigurableAdapter[Any, Any]:
        """Return a step some of whose settings are those of a call's config."""
        return ConfigurableAdapter(default=self, fields=kwargs)


class ConfigurableAdapter(RunnableConfigurableFields[Input, Output]):
    """Passes settings on as LangChain does, but leaves those unset that weren't set.

    LangChain makes a new step with all fields of the first, set or not, and then an option that
    nobody set would override the pruner's.
    """

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where `load` finds this class."""
        return __name__.split(".")

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
