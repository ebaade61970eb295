"""Packages that come with an extra of at2-rag."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, *, extra: str = "evals") -> Any:
    """Import a module of a package that an extra installs.

    Args:
        module: The module.
        extra: The extra of at2-rag that has its package.

    Raises:
        ImportError: If it isn't installed; the message gives the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'the evals need {module} ({error}); run: pip install "at2-rag[{extra}]"'
        ) from error
