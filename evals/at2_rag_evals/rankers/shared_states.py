"""The store of chunk states that the items of a run share, and how much memory it may take.

Items of a data set share chunks, and a padded set is made of the same chunks again.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from at2_rag.states.store import ChunkCache

_MEMORY_SHARE = 0.6
_FALLBACK_BYTES = 4 * 2**30

_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and version 1


@cache
def shared_states() -> ChunkCache:
    """Return the one store of this process, so that its bound holds for all systems together."""
    return ChunkCache(max_memory_bytes=default_bytes())


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
