"""How much memory the chunk states of a run may take, also in a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from at2_rag_evals.rankers.shared_states import default_bytes

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
