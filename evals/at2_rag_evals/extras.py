"""Packages that come with the `evals` extra."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str) -> Any:
    """Import a module of a package that the `evals` extra installs.

    Raises:
        ImportError: If it isn't installed; the message gives the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'the evals need {module} ({error}); run: pip install "at2-rag[evals]"'
        ) from error
