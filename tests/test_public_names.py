"""The public surface: what a public call takes, returns or raises can be imported by its name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, get_args, get_type_hints

import pytest

import at2_rag
from at2_rag import AT2Attributor, AT2Pruner, PruneOptions, PruneOverrides, errors
from at2_rag.pruner import PrunerSettings

PACKAGES = (
    "at2_rag",
    "haystack_integrations.components.rankers.at2_rag",
    "langchain_at2_rag",
    "llama_index_at2_rag",
    "mcp_at2_rag",
    "at2_rag_evals",
)


@pytest.mark.parametrize("package", PACKAGES[:5])
def test_public_names_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        assert not inspect.isclass(value) or value.__name__ == name
    assert set(module.__all__) <= set(dir(module))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'at2_rag' has no attribute 'Pruner'"):
        at2_rag.Pruner  # noqa: B018


def classes_of(hint: Any) -> set[type]:
    """Return the classes of at2_rag that a type hint names."""
    if inspect.isclass(hint) and hint.__module__.startswith("at2_rag"):
        return {hint}
    return {name for part in get_args(hint) for name in classes_of(part)}


@pytest.mark.parametrize("public", [AT2Pruner, AT2Attributor])
def test_all_that_a_public_method_takes_or_returns_is_public(public: type) -> None:
    methods = [
        method
        for name, method in inspect.getmembers(public, inspect.isroutine)
        if name == "__init__" or not name.startswith("_")
    ]
    assert len(methods) > 3
    named = set[type]()
    for method in methods:
        hints = get_type_hints(method)
        hints.pop("settings", None)  # a TypedDict of the constructor's keyword arguments
        named |= {kind for hint in hints.values() for kind in classes_of(hint)}
    internal = {"KeptHeads"}  # the value type of a cache of the caller's making
    assert {kind.__name__ for kind in named} - internal <= set(at2_rag.__all__)


def test_every_error_is_public() -> None:
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            assert issubclass(value, errors.AT2Error) and name in at2_rag.__all__


def test_keyword_arguments_are_typed_as_what_takes_them() -> None:
    assert get_type_hints(PruneOverrides) == get_type_hints(PruneOptions)
    taken = get_type_hints(AT2Pruner.__init__)
    assert taken.pop("model") is at2_rag.LoadedModel
    taken.pop("return")
    assert get_type_hints(PrunerSettings) == taken
