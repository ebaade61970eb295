"""Pickling what reads with a model: by the model's name or folder, from which it is loaded again.

A process that unpickles the same again, as a worker does for each of its tasks, gets the same
object: neither a model nor its tokenizer is loaded twice.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from cachetools import LRUCache

from at2_rag.errors import InputError
from at2_rag.model.forks import ForkLock
from at2_rag.model.loading import LoadedModel, ModelSource

_MOST_KEPT = 4  # objects of each kind that a process keeps

_loading = ForkLock()
_made: LRUCache[tuple[Any, ...], Any] = LRUCache(_MOST_KEPT)


def reduced(
    make: Callable[..., Any], source: ModelSource | None, arguments: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return what `__reduce__` returns for `make(model, **arguments)`.

    Raises:
        InputError: If the model was passed as an object, or an argument can't be pickled.
    """
    if source is None:
        raise InputError(
            "this reads with a model that was passed as an object, which isn't pickled; write "
            "model and tokenizer into a folder with save_pretrained, and load it with "
            "from_pretrained(Path(FOLDER))"
        )
    for name, value in arguments.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise InputError(
                f"{name} can't be pickled ({type(error).__name__}: {error}); pass what can be, for "
                "example a function or an object of a class that a module defines"
            ) from error
    return _unpickled, (make, source, pickle.dumps(dict(arguments)))


def _unpickled(make: Callable[..., Any], source: ModelSource, arguments: bytes) -> Any:
    key = (make, source, arguments)
    with _loading:
        if key in _made:
            return _made[key]
    values = pickle.loads(arguments)  # not under the lock: there may be another pruner among them
    with _loading:
        if key not in _made:
            _made[key] = make(_model(source), **values)
        return _made[key]


@lru_cache(_MOST_KEPT)
def _model(source: ModelSource) -> LoadedModel:
    return LoadedModel.from_pretrained(**asdict(source))
