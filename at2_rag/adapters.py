"""What the adapters of frameworks share: their settings, and the pruner of the default model."""

from __future__ import annotations

from dataclasses import fields
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from at2_rag.errors import InputError
from at2_rag.forks import ForkLock
from at2_rag.options import DEFAULT_TOP_K, PruneOptions, PruneOverrides, plain_types
from at2_rag.pruner import AT2Pruner
from at2_rag.pruning.workers import Workers

_LOADING = ForkLock()
_loader = Workers(lambda: 1)


def default_pruner() -> AT2Pruner:
    """Return the pruner of the default model, loaded on the first call, one for the process.

    Threads that call meanwhile wait for that one load; a failed load is tried again.
    """
    with _LOADING:
        return _load()


@cache
def _load() -> AT2Pruner:
    return AT2Pruner.from_pretrained()


class AdapterSettings(BaseModel):
    """Settings of an adapter: a field for each option of `PruneOptions`, and these.

    Options are named as there, but `top_n` stands for `top_k`. One that isn't passed is the
    pruner's default. Serialised settings leave out the pruner and every option that wasn't passed.

    Attributes:
        pruner: The pruner; None for that of the default model, loaded on first use and shared by
            the process.
        title_key: Metadata key of the title; None for no title.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    options_type: ClassVar[type[PruneOptions]] = PruneOptions

    pruner: AT2Pruner | None = Field(default=None, exclude=True)
    title_key: str | None = "title"

    @classmethod
    def with_options(cls, options_type: type[PruneOptions]) -> type[Self]:
        """Return a subclass that has a field for each option of a type."""
        types = plain_types(options_type)
        definitions: dict[str, Any] = {
            _setting(option.name): (
                reduce(or_, types[option.name]),
                Field(default=option.default, description=option.metadata["help"]),
            )
            for option in fields(options_type)
        }
        model = create_model(
            cls.__name__,
            __base__=cls,
            __module__=cls.__module__,
            __doc__=cls.__doc__,
            **definitions,
        )
        model.options_type = options_type
        return model

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._without_unset(serialize(self))

    def _without_unset(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Leave out unset options, so that a pruner's defaults hold when settings are read."""
        options = {_setting(option.name) for option in fields(self.options_type)}
        unset = options - self.model_fields_set
        return {name: value for name, value in settings.items() if name not in unset}

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        try:
            self.prune_options()
        except InputError as error:
            raise InputError(str(error).replace("top_k is", "top_n is")) from error
        return self

    def prune_options(self) -> PruneOptions:
        """Return the options of all fields."""
        names = [option.name for option in fields(self.options_type)]
        return self.options_type(**{name: getattr(self, _setting(name)) for name in names})

    def overrides(self, pruner: AT2Pruner) -> PruneOverrides:
        """Return the options that were set, and `DEFAULT_TOP_K` if there is no limit at all."""
        settings = {
            option.name: getattr(self, _setting(option.name))
            for option in fields(self.options_type)
            if _setting(option.name) in self.model_fields_set
        }
        overrides = cast(PruneOverrides, settings)
        if pruner.calibrated or pruner.options.override(**overrides).has_limit:
            return overrides
        return {**overrides, "top_k": DEFAULT_TOP_K}

    def effective_options(self, pruner: AT2Pruner) -> PruneOptions:
        """Return the options of a call: the pruner's, overridden by those that were set."""
        return pruner.options.override(**self.overrides(pruner))

    def loaded_pruner(self) -> AT2Pruner:
        """Return the pruner, loaded now if need be."""
        return self.pruner or default_pruner()

    async def aloaded_pruner(self) -> AT2Pruner:
        """Return the pruner, loaded in a worker thread if need be."""
        if self.pruner is not None:
            return self.pruner
        return await _loader.run(default_pruner)


def _setting(option: str) -> str:
    return "top_n" if option == "top_k" else option


if not TYPE_CHECKING:  # type checkers have `AdapterOverrides` instead
    AdapterSettings = AdapterSettings.with_options(PruneOptions)
