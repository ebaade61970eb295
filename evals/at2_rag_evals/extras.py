"""Packages that come with an extra of at2-rag."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, *, extra: str = "evals") -> Any:
    """Import a module; if it is missing, the ImportError gives the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'the evals need {module} ({error}); run: pip install "at2-rag[{extra}]"'
        ) from error
