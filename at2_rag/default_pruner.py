"""The default model's pruner, loaded once for the whole process.

For callers that need a pruner and were given none, such as the framework adapters.
"""

from __future__ import annotations

import threading
from functools import cache

from at2_rag.pruner import AT2Pruner

_LOADING = threading.Lock()


def default_pruner() -> AT2Pruner:
    """Return the pruner of the default model, the same object on every call.

    The first call loads it, which takes seconds (and a download where the model isn't there
    yet); threads that ask meanwhile wait for that one load. A failed load is tried again on
    the next call.
    """
    with _LOADING:
        return _load()


@cache
def _load() -> AT2Pruner:
    return AT2Pruner.from_pretrained()
