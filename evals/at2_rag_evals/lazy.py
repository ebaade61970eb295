"""Classes that are imported only when one is instantiated, so that their names cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def maker(target: str, *options: str, **arguments: Any) -> Callable[[Any], Any]:
    """Return what makes an object from an options value.

    Args:
        target: The class, as "module:name".
        options: The attributes of the options value that are arguments of the same name.
        arguments: Other arguments; they take precedence.
    """

    def make(values: Any) -> Any:
        module, _, name = target.partition(":")
        from_options = {option: getattr(values, option) for option in options}
        return getattr(import_module(module), name)(**from_options | arguments)

    return make
