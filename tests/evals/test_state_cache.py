"""The chunk states that a run keeps stay within their bound, also in a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from at2_rag.chunk_states import ChunkState
from at2_rag_evals.rankers.state_cache import StateCache, default_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def limit(cgroups: Path, name: str, text: str) -> None:
    path = cgroups / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"memory.max": "100000000\n"}, 100_000_000),
        ({"memory.max": "max\n"}, MACHINE),
        ({"memory/memory.limit_in_bytes": "50000000\n"}, 50_000_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ({"memory.max": "max\n", "memory/memory.limit_in_bytes": "50000000\n"}, 50_000_000),
        ({"memory.max": "40000000\n", "memory/memory.limit_in_bytes": "50000000\n"}, 40_000_000),
        ({"memory.max": ""}, MACHINE),
        ({"memory.max/is_a_folder": ""}, MACHINE),
    ],
)
def test_the_default_is_a_share_of_what_the_process_may_use(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        limit(tmp_path, name, text)
    assert default_bytes(tmp_path) == int(0.6 * expected)


def state(numbers: int) -> ChunkState:
    return ChunkState(torch.zeros(1, 1, numbers, 1), torch.zeros(0, 1, numbers, 1))


def test_states_beyond_the_bound_are_forgotten_the_oldest_first() -> None:
    cache = StateCache(max_bytes=100)
    for key in "abc":
        cache[key] = state(8)  # 32 bytes
    assert cache["a"].nbytes == 32
    cache["d"] = state(8)
    assert set(cache) == {"a", "c", "d"}
    cache["e"] = state(26)
    assert set(cache) == {"a", "c", "d"}, "larger than all there is room for"
    cache["f"] = state(25)
    assert set(cache) == {"f"}
