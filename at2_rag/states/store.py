"""`ChunkCache`: chunk states in memory, and on disk if it has a folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cachetools import LRUCache

from at2_rag.errors import InputError, brief
from at2_rag.model.forks import call_after_fork
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.states.files import MOST_BYTES, FolderSize, StateCounts, StateFiles

DEFAULT_MEMORY_BYTES = 2**29

_TOUCH_SECONDS = 60.0  # between two updates of a file's time of use, for states in memory


@dataclass(slots=True)
class _Remembered:
    """A state in memory, and when its file's time of use was last updated (`time.monotonic`)."""

    state: KeptHeads
    touched: float


class ChunkCache(MutableMapping[str, KeptHeads]):
    """Keeps chunk states for later queries, the most recently used in main memory.

    A mapping from keys to states. Lookups by `[]` and `get` are counted, `in` and iteration aren't.
    Thread-safe. A folder may be shared by any number of caches and processes, so that a key may
    vanish while it is iterated over. Pickled, it is its folder, or an empty cache if it has none.

    Args:
        folder: Folder in which states outlive the process; None for memory only.
        max_memory_bytes: Most bytes of states in memory; 0 for none.
        max_disk_bytes: Most bytes of the folder's files; noted in the folder. None for the noted
            bound, else 20 GiB.

    Raises:
        InputError: If a bound is negative or 2**63 and more, or the folder's bound is 0.
        StorageError: If the folder doesn't exist and can't be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        max_memory_bytes: int = DEFAULT_MEMORY_BYTES,
        max_disk_bytes: int | None = None,
    ) -> None:
        if not 0 <= max_memory_bytes < MOST_BYTES:
            raise InputError(
                f"max_memory_bytes is {brief(max_memory_bytes)}; pass a number of bytes from 0, "
                "below 2**63"
            )
        if max_disk_bytes is not None and not 1 <= max_disk_bytes < MOST_BYTES:
            raise InputError(
                f"max_disk_bytes is {brief(max_disk_bytes)}; pass a positive number of bytes, "
                "below 2**63"
            )
        self._memory = _new_memory(max_memory_bytes)
        self._files = None
        if folder is not None:
            self._files = StateFiles(folder, max_bytes=max_disk_bytes)
        self._lock = threading.Lock()
        self._memory_hits = self._disk_hits = self._misses = 0
        call_after_fork(self._after_fork)

    def _after_fork(self) -> None:
        """Free the lock; if a thread was changing what is in memory, forget that."""
        if self._lock.locked():
            self._memory = _new_memory(int(self._memory.maxsize))
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        settings: dict[str, Any] = {"max_memory_bytes": int(self._memory.maxsize)}
        if self._files is not None:  # which notes the rest
            settings["folder"] = self._files.folder.absolute()
        return partial(type(self), **settings), ()

    @property
    def counts(self) -> StateCounts:
        """Hits, misses and failures so far."""
        names = ("damaged", "unwritten", "too_large", "evicted")
        with self._lock:
            return StateCounts(
                memory_hits=self._memory_hits,
                disk_hits=self._disk_hits,
                misses=self._misses,
                memory_bytes=int(self._memory.currsize),
                **{name: getattr(self._files, name, 0) for name in names},
            )

    @property
    def disk_size(self) -> FolderSize:
        """Number of states in the folder, and their bytes; zero without a folder."""
        return FolderSize(0, 0) if self._files is None else self._files.size()

    def __getitem__(self, key: str) -> KeptHeads:
        with self._lock:
            known = self._memory.get(key)
            if known is not None:
                self._memory_hits += 1
        if known is not None:
            if self._files is not None and time.monotonic() - known.touched > _TOUCH_SECONDS:
                known.touched = time.monotonic()
                self._files.touch(key)
            return known.state
        state = None if self._files is None else self._files.get(key)
        with self._lock:
            if state is None:
                self._misses += 1
                raise KeyError(key)
            self._disk_hits += 1
        self._remember(key, state)
        return state

    def __setitem__(self, key: str, state: KeptHeads) -> None:
        state = state.to("cpu")
        self._remember(key, state)
        if self._files is not None:
            self._files.put(key, state)

    def __delitem__(self, key: str) -> None:
        with self._lock:
            known = self._memory.pop(key, None) is not None
        known |= self._files is not None and self._files.remove(key)
        if not known:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            if key in self._memory:
                return True
        return self._files is not None and isinstance(key, str) and self._files.has(key)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            keys = list(self._memory)
        if self._files is not None:
            keys += self._files.keys()
        return iter(dict.fromkeys(keys))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove all states, in memory and on disk.

        Raises:
            StorageError: If a file can't be removed.
        """
        with self._lock:
            self._memory.clear()
        if self._files is not None:
            self._files.clear()

    def _remember(self, key: str, state: KeptHeads) -> None:
        if state.nbytes <= self._memory.maxsize:
            remembered = _Remembered(state.mapped(), time.monotonic())
            with self._lock:
                self._memory[key] = remembered


def _new_memory(max_bytes: int) -> LRUCache[str, _Remembered]:
    return LRUCache(max_bytes, getsizeof=lambda remembered: remembered.state.nbytes)
