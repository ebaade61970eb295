"""Classes that are imported only when one is instantiated, so that their names cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def maker(target: str, *options: str, **arguments: Any) -> Callable[[Any], Any]:
    """Return a function that instantiates a class with attributes of an options object.

    Args:
        target: The class, as "module:name", the module relative to this package.
        options: Attributes of the options object that are passed under the same name.
        arguments: Further arguments; they take precedence.
    """

    def make(values: Any) -> Any:
        module, _, name = target.partition(":")
        from_options = {option: getattr(values, option) for option in options}
        return getattr(import_module(f"at2_rag_evals.{module}"), name)(**from_options | arguments)

    return make
