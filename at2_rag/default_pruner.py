"""What the framework adapters share: the default model's pruner, and a limit where none is set."""

from __future__ import annotations

import threading
from functools import cache

from at2_rag.options import DEFAULT_TOP_K, PruneOverrides
from at2_rag.pruner import AT2Pruner

_LOADING = threading.Lock()


def default_pruner() -> AT2Pruner:
    """Return the pruner of the default model, the same object on every call.

    The first call loads it, which takes seconds (and a download where the model isn't there
    yet); threads that call meanwhile wait for that one load. A failed load is tried again on
    the next call.
    """
    with _LOADING:
        return _load()


def limited(pruner: AT2Pruner, overrides: PruneOverrides) -> PruneOverrides:
    """Return overrides with which a call has a limit: the best three chunks where there is none."""
    if pruner.calibrated or pruner.options.override(**overrides).has_limit:
        return overrides
    return {**overrides, "top_k": DEFAULT_TOP_K}


@cache
def _load() -> AT2Pruner:
    return AT2Pruner.from_pretrained()
