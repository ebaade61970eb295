"""What the adapters of frameworks share: their settings, and pruners that are loaded by name.

Importing an adapter loads neither torch nor transformers; they come in with the first pruner.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache, lru_cache, reduce
from operator import or_
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias, TypedDict, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from at2_rag.errors import InputError, brief
from at2_rag.model.forks import ForkLock
from at2_rag.options import DEFAULT_TOP_K, OnError, PruneOptions, PruneOverrides, plain_types
from at2_rag.pruning.workers import Workers
from at2_rag.results import PruneResult, ScoredChunk

if TYPE_CHECKING:
    from at2_rag.model.loading import LoadedModel
    from at2_rag.pruner import AT2Pruner

MOST_PRUNERS = 16
"""Pruners that are kept by name; the first one that was made goes first."""

_pruners: dict[PrunerByName, AT2Pruner] = {}
_logger = logging.getLogger(__name__)
_LOADING = ForkLock()
_loader = Workers(lambda: 1)
_LIMIT_NAMES = ("top_k", "top_n", "k")
_NOT_WRITTEN = "not_written"
"""Key of serialised settings that names what was set, but can't be written with them."""

_LEFT_OUT = "\n[...]\n"
_REPEATED = re.compile(rf"(?:{re.escape(_LEFT_OUT)})+")

OnResult: TypeAlias = Callable[[PruneResult], object]

METADATA_PREFIX = "at2_"

RESULT_TYPES: Mapping[str, type] = MappingProxyType(
    {"answerable": float, "duplicates": list, "kept_spans": list}
)
"""Results of a pass that go into metadata, under a prefix, with the types of their values."""


@dataclass(frozen=True, slots=True)
class PrunerByName:
    """What a pruner is loaded by, all of it plain text; None for the default."""

    model: str | None = None  # a model's name or folder
    head_weights: str | None = None  # the name of head weights, or their folder
    device: str | None = None
    chunk_cache: str | None = None  # a folder
    on_error: OnError | None = None

    def __post_init__(self) -> None:
        for name in ("model", "head_weights", "device", "chunk_cache"):
            value = _path_as_text(getattr(self, name))
            if not isinstance(value, str | None):
                raise InputError(f"{name} is a {type(value).__name__}; pass a string, or None")
            object.__setattr__(self, name, value)
        if self.on_error not in (None, "raise", "keep_all"):
            raise InputError(f"on_error is {brief(self.on_error)}; pass 'raise' or 'keep_all'")

    def check_alone(self, pruner: AT2Pruner | None) -> None:
        """Raise `InputError` if anything here is set beside a pruner."""
        names = [name for name, value in asdict(self).items() if value is not None]
        if pruner is not None and names:
            raise InputError(
                f"{', '.join(names)} and pruner were passed; pass the pruner alone, which has "
                "these already, or what it is to be loaded by"
            )

    def pruner(self) -> AT2Pruner:
        """Return the pruner, made on the first call, one for the process.

        Threads that call meanwhile wait for that; what failed is tried again. Pruners share models.
        """
        if (pruner := _pruners.get(self)) is not None:
            return pruner
        with _LOADING:
            if self not in _pruners:
                new = _new_pruner(self)
                while len(_pruners) >= MOST_PRUNERS:
                    _pruners.pop(next(iter(_pruners)))
                _pruners[self] = new
            return _pruners[self]

    async def apruner(self) -> AT2Pruner:
        """Return the pruner, made in a worker thread if need be."""
        if (pruner := _pruners.get(self)) is not None:
            return pruner
        return await _loader.run(self.pruner)


class PrunerNames(TypedDict, total=False):
    """The fields of `PrunerByName` as keyword arguments, for type checkers."""

    model: str | os.PathLike[str] | None
    head_weights: str | os.PathLike[str] | None
    device: str | None
    chunk_cache: str | os.PathLike[str] | None
    on_error: OnError | None


def _path_as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_NameOrFolder = Annotated[str | None, BeforeValidator(_path_as_text)]


def _new_pruner(names: PrunerByName) -> AT2Pruner:
    from at2_rag.pruner import AT2Pruner
    from at2_rag.readout.shipped import named_or_folder

    return AT2Pruner(
        loaded_model(names.model, names.device),
        head_weights=named_or_folder(names.head_weights),
        chunk_cache=names.chunk_cache,
        on_error=names.on_error or "raise",
    )


@lru_cache(maxsize=4)
def loaded_model(model: str | None, device: str | None) -> LoadedModel:
    """Return a model by its name or folder, None for the default one, loaded once."""
    from at2_rag.model.hub import DEFAULT_MODEL
    from at2_rag.model.loading import LoadedModel

    return LoadedModel.from_pretrained(model or DEFAULT_MODEL, device=device)


def within_limits(pruner: AT2Pruner, overrides: PruneOverrides) -> PruneOverrides:
    """Return the options of a call, with `DEFAULT_TOP_K` where nothing would be a limit."""
    if pruner.calibrated or pruner.options.override(**overrides).has_limit:
        return overrides
    return {**overrides, "top_k": DEFAULT_TOP_K}


def checked_prefix(prefix: str) -> str:
    """Return a prefix of metadata keys; raises `InputError` if it is blank or no string."""
    if not isinstance(prefix, str) or not prefix.strip():
        raise InputError(
            f"metadata_prefix is {brief(prefix)}; pass what our keys shall begin with, such as "
            "'at2_', so that they can be told from yours"
        )
    return prefix


def checked_options(options: Mapping[str, Any]) -> PruneOverrides:
    """Return options; raises `InputError` for a name or a value that can't be used."""
    try:
        PruneOptions().override(**options)
    except TypeError as error:
        raise InputError(str(error)) from error
    return cast(PruneOverrides, dict(options))


def checked_pruner(pruner: object) -> AT2Pruner:
    """Return a pruner; raises `InputError` if it is anything else."""
    from at2_rag.pruner import AT2Pruner

    if not isinstance(pruner, AT2Pruner):
        raise InputError(f"pruner is a {type(pruner).__name__}; pass an AT2Pruner, or None")
    return pruner


if TYPE_CHECKING:
    _Pruner: TypeAlias = AT2Pruner
else:
    _Pruner = Annotated[Any, AfterValidator(checked_pruner)]


def with_results(
    metadata: Mapping[str, Any],
    results: Mapping[str, Any],
    *,
    prefix: str = METADATA_PREFIX,
    earlier: Container[str] | None = None,
) -> dict[str, Any]:
    """Return a copy of metadata with the results of this pass, and none of an earlier one.

    Its dictionaries and lists are copies, too; what else is in them is the caller's own object.

    Args:
        metadata: The caller's entries, and maybe results of an earlier pass.
        results: What is written, by names without the prefix.
        prefix: What the keys of results begin with. An entry under the prefix and one of the names
            of `RESULT_TYPES` is of an earlier pass if it has the type named there. Whatever else is
            in the metadata stays; a result whose key is taken is left out, which is logged once.
        earlier: Keys that an earlier pass may have written; None for any.
    """
    types = {prefix + name: kind for name, kind in RESULT_TYPES.items()}
    copied: Mapping[str, Any] = _copied(metadata, {})
    callers = {
        key: value
        for key, value in copied.items()
        if not (key in types and type(value) is types[key] and (earlier is None or key in earlier))
    }
    written = {prefix + name: value for name, value in results.items()}
    for key in written.keys() & callers.keys():
        warn_of_collision(key)
    return {**written, **callers}


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Return a copy of dictionaries and lists within each other, by the ids of the originals."""
    if type(value) not in (dict, list):
        return value
    if id(value) not in copies:
        copy: Any = type(value)()
        copies[id(value)] = copy
        if isinstance(value, dict):
            copy |= {key: _copied(one, copies) for key, one in value.items()}
        else:
            copy += [_copied(one, copies) for one in value]
    return copies[id(value)]


def result_entries(chunk: ScoredChunk, result: PruneResult) -> dict[str, Any]:
    """Return what goes into a chunk's metadata, by the names of `RESULT_TYPES`."""
    entries: dict[str, Any] = {}
    if result.answerable is not None:
        entries["answerable"] = result.answerable
    if chunk.duplicates:
        entries["duplicates"] = list(chunk.duplicates)
    if chunk.spans is not None:
        entries["kept_spans"] = list(map(list, chunk.spans))
    return entries


def joined_passages(result: PruneResult) -> str:
    """Return the kept passages of a text in its order, with [...] where others were left out.

    The passages, each a chunk, are all of the text.
    """
    kept = {passage.index: passage for passage in result.kept}
    parts: list[str] = []
    for index in range(len(result.kept) + len(result.dropped)):
        passage = kept.get(index)
        spans = passage and passage.spans
        if passage is None or (spans and passage.text[: spans[0][0]].strip()):
            parts.append(_LEFT_OUT)
        if passage is not None:
            parts.append(passage.kept_text)
            if spans and passage.text[spans[-1][1] :].strip():
                parts.append(_LEFT_OUT)
            elif spans:
                parts.append(passage.text[spans[-1][1] :])
    return _REPEATED.sub(_LEFT_OUT, "".join(parts)).strip("\n")


@cache
def warn_of_collision(key: str) -> None:
    """Log, once for each key, that a result isn't written over the caller's entry."""
    _logger.warning(
        "metadata has an entry %r already, which is kept: what at2_rag writes there is left out; "
        "rename the entry to get both",
        key,
    )


class AdapterSettings(BaseModel):
    """Settings of an adapter: a field for each option of `PruneOptions`, and these.

    Options are named as there, but `top_n` (or `k`, in a retriever) stands for `top_k`. One that
    isn't passed is the pruner's default. Serialised settings leave out the pruner and every option
    that wasn't passed.

    Attributes:
        pruner: The pruner; None to load one on first use by `model` to `on_error`, which all
            adapters of the process with the same of them share. Settings of an adapter that had one
            can't be read without passing it again.
        model: Name or folder of the scoring model; None for the default model.
        head_weights: Name of shipped head weights, or a folder that `at2-rag train` wrote; None for
            the default ones.
        device: Where the model runs; None for CUDA where there is one, else the CPU.
        chunk_cache: Folder that keeps what was read of chunks; None for main memory.
        on_error: "keep_all" to get all back, unranked, if scoring fails; None to raise.
        title_key: Metadata key of the title; None for no title.
        metadata_prefix: What the metadata keys that we write begin with. Under it `answerable`,
            `duplicates` and `kept_spans` are ours: those of an earlier pass are left out.
        on_result: Called with the result of each pruning, in which chunks are the framework's own
            objects: what was dropped, notes and timings. What it raises goes to the caller.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    options_type: ClassVar[type[PruneOptions]] = PruneOptions
    top_k_name: ClassVar[str] = "top_n"

    pruner: _Pruner | None = Field(default=None, exclude=True)
    model: _NameOrFolder = None
    head_weights: _NameOrFolder = None
    device: str | None = None
    chunk_cache: _NameOrFolder = None
    on_error: OnError | None = None
    title_key: str | None = "title"
    metadata_prefix: Annotated[str, AfterValidator(checked_prefix)] = METADATA_PREFIX
    on_result: OnResult | None = Field(default=None, exclude=True)

    @classmethod
    def with_options(
        cls, options_type: type[PruneOptions], *, top_k_name: str = "top_n"
    ) -> type[Self]:
        """Return a subclass that has a field for each option of a type."""
        types = plain_types(options_type)
        definitions: dict[str, Any] = {
            top_k_name if option.name == "top_k" else option.name: (
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
        model.options_type, model.top_k_name = options_type, top_k_name
        return model

    @classmethod
    def _setting(cls, option: str) -> str:
        return cls.top_k_name if option == "top_k" else option

    def with_settings(self, **settings: Any) -> Self:
        """Return a copy with other settings, which are checked; what wasn't set stays unset."""
        return type(self)(**{**self.set_fields(), **settings})

    def set_fields(self) -> dict[str, Any]:
        """Return the fields that were set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._serialisable(serialize(self))

    def _serialisable(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Leave out options that aren't set, and name what was set but can't be written."""
        return {**self._without_unset(settings), **self._not_written()}

    def _not_written(self) -> dict[str, list[str]]:
        objects = {"pruner": self.pruner, "on_result": self.on_result}
        names = [name for name, value in objects.items() if value is not None]
        names += self._unwritable()
        return {_NOT_WRITTEN: names} if names else {}

    def _unwritable(self) -> list[str]:
        """Return the names of other fields whose values can't be written."""
        return []

    def written(self) -> dict[str, Any]:
        """Return the settings that were set and can be written, and name the others."""
        settings = self.set_fields()
        fields = type(self).model_fields
        left_out = {name for name in fields if fields[name].exclude} | {*self._unwritable()}
        shown = {name: value for name, value in settings.items() if name not in left_out}
        return {**shown, **self._not_written()}

    def _without_unset(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Leave out unset options, so that a pruner's defaults hold when settings are read."""
        options = {self._setting(option.name) for option in fields(self.options_type)}
        unset = options - self.model_fields_set
        return {name: value for name, value in settings.items() if name not in unset}

    @model_validator(mode="before")
    @classmethod
    def _check_settings(cls, settings: Any) -> Any:
        """Name the setting that an unknown one may stand for."""
        known = cls.model_fields.keys() | {_NOT_WRITTEN, "class_name"}
        for name in settings if isinstance(settings, Mapping) else ():
            if name not in known:
                close = get_close_matches(str(name), known, n=1)
                likely = cls.top_k_name if name in _LIMIT_NAMES else close and close[0]
                meant = f"; did you mean {likely}?" if likely else ""
                raise InputError(f"{cls.__name__} has no setting {name!r}{meant}")
        return settings

    @model_validator(mode="before")
    @classmethod
    def _check_written(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping) or _NOT_WRITTEN not in settings:
            return settings
        missing = [name for name in settings[_NOT_WRITTEN] if settings.get(name) is None]
        if missing:
            by_name = ", or let the pruner be loaded by name (model, head_weights, device, "
            by_name += "chunk_cache), which is written"
            raise InputError(
                f"these settings are of an adapter with {' and '.join(missing)}, which can't be "
                f"written with them; pass it again{by_name if 'pruner' in missing else ''}"
            )
        return {name: value for name, value in settings.items() if name != _NOT_WRITTEN}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        self._by_name().check_alone(self.pruner)
        return self

    def _by_name(self) -> PrunerByName:
        names = {field.name: getattr(self, field.name) for field in fields(PrunerByName)}
        return PrunerByName(**names)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        try:
            self.prune_options()
        except InputError as error:
            message = str(error).replace("top_k is", f"{self.top_k_name} is")
            raise InputError(message) from error
        return self

    def prune_options(self) -> PruneOptions:
        """Return the options of all fields."""
        names = [option.name for option in fields(self.options_type)]
        return self.options_type(**{name: getattr(self, self._setting(name)) for name in names})

    def overrides(self, pruner: AT2Pruner) -> PruneOverrides:
        """Return the options that were set, and `DEFAULT_TOP_K` if there is no limit at all."""
        settings = {
            option.name: getattr(self, self._setting(option.name))
            for option in fields(self.options_type)
            if self._setting(option.name) in self.model_fields_set
        }
        return within_limits(pruner, cast(PruneOverrides, settings))

    def effective_options(self, pruner: AT2Pruner) -> PruneOptions:
        """Return the options of a call: the pruner's, overridden by those that were set."""
        return pruner.options.override(**self.overrides(pruner))

    def report(self, result: PruneResult, objects: Sequence[Any]) -> None:
        """Call `on_result`, if there is one, with the result of pruning the framework's objects."""
        if self.on_result is not None:
            kept, dropped = (
                tuple(replace(chunk, chunk=objects[chunk.index]) for chunk in chunks)
                for chunks in (result.kept, result.dropped)
            )
            self.on_result(replace(result, kept=kept, dropped=dropped))

    def loaded_pruner(self) -> AT2Pruner:
        """Return the pruner, loaded now if need be."""
        return self.pruner or self._by_name().pruner()

    async def aloaded_pruner(self) -> AT2Pruner:
        """Return the pruner, loaded in a worker thread if need be."""
        return self.pruner or await self._by_name().apruner()


class RetrieverSettings(AdapterSettings):
    """Settings of an adapter that is a retriever: those of `AdapterSettings`, `k` for `top_k`."""


if not TYPE_CHECKING:  # type checkers have `AdapterOverrides` instead
    RetrieverSettings = RetrieverSettings.with_options(PruneOptions, top_k_name="k")
    AdapterSettings = AdapterSettings.with_options(PruneOptions)
