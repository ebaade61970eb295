"""Chunk states shared by the items of a run, bounded in bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, MutableMapping
from functools import cache
from pathlib import Path

from cachetools import LRUCache

from at2_rag.chunk_states import ChunkState

_MEMORY_SHARE = 0.6
_FALLBACK_BYTES = 4 * 2**30

_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and version 1


class StateCache(MutableMapping[str, ChunkState]):
    """The states used last, as many as fit; safe to use from many threads.

    Items of a data set share chunks, and a padded set is made of the same chunks again.

    Args:
        max_bytes: Memory to use; None for `default_bytes()`.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._states: LRUCache[str, ChunkState] = LRUCache(
            max_bytes or default_bytes(), getsizeof=lambda state: state.nbytes
        )
        self._lock = threading.Lock()

    def __getitem__(self, key: str) -> ChunkState:
        with self._lock:
            return self._states[key]

    def __setitem__(self, key: str, state: ChunkState) -> None:
        with self._lock:
            if state.nbytes <= self._states.maxsize:
                self._states[key] = state

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._states[key]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._states))

    def __len__(self) -> int:
        with self._lock:
            return len(self._states)


@cache
def shared_states() -> StateCache:
    """Return the one cache of this process, so that its bound holds for all systems together."""
    return StateCache()


def default_bytes(cgroups: Path = _CGROUPS) -> int:
    """Return 60 % of the memory that this process may use: the machine's, or less in a container.

    Args:
        cgroups: Where Linux shows control groups. Only the limits of the outermost one seen are
            read, which in a container is the container's.
    """
    limits = [_number_in(cgroups / name) for name in _LIMIT_FILES]
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        pass
    known = [limit for limit in limits if limit is not None]
    return int(min(known) * _MEMORY_SHARE) if known else _FALLBACK_BYTES


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, not readable, or "max"
        return None
