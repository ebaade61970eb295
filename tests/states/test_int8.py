"""States in eight bits: near what they were made from, half the bytes, never taken for exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from at2_rag.states.int8 import Int8State

from at2_rag import ChunkCache
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.states.files import StateFiles
from tests.states.states import CHUNKS, key_of, pruner, same, scores, state


def test_a_row_by_hand() -> None:
    row = torch.tensor([0.0, 127.0, -63.4, 1.6]) / 64
    kept = Int8State.of(ChunkState(row.view(1, 1, 1, 4), torch.zeros(0, 1, 1, 4)))
    assert kept.keys.flatten().tolist() == [0, 127, -63, 2]
    assert kept.key_scales.item() == 1 / 64
    assert kept.restored().keys.flatten().tolist() == [0, 127 / 64, -63 / 64, 2 / 64]


@pytest.mark.parametrize(
    ("tokens", "dtype"), [(70, torch.float32), (70, torch.bfloat16), (0, torch.float16)]
)
def test_no_number_moves_by_more_than_half_a_step(dtype: torch.dtype, tokens: int) -> None:
    before = state(tokens, dtype=dtype)
    after = Int8State.of(before).restored()
    for was, now in ((before.keys, after.keys), (before.values, after.values)):
        assert now.dtype == dtype and now.shape == was.shape
        was, now = was.float(), now.float()
        step = was.abs().amax(-1, keepdim=True) / 127
        rounding = torch.finfo(dtype).eps * was.abs()
        assert ((now - was).abs() <= step / 2 + rounding).all()


def test_rows_of_zeros_and_rows_that_overflowed() -> None:
    zeros = ChunkState(torch.zeros(2, 1, 3, 4), torch.zeros(1, 1, 3, 4))
    assert same(Int8State.of(zeros).restored(), zeros)
    broken = ChunkState(torch.full((1, 1, 1, 4), torch.inf), torch.full((1, 1, 1, 4), torch.nan))
    restored = Int8State.of(broken).restored()
    assert not restored.keys.isfinite().any() and not restored.values.isfinite().any()


def test_a_cache_in_eight_bits_holds_less_and_returns_the_same_each_time(tmp_path: Path) -> None:
    exact, rounded = ChunkCache(), ChunkCache(tmp_path, precision="int8")
    exact[key_of("a")] = rounded[key_of("a")] = state(70)  # rows of four numbers: a scale as large
    assert exact.counts.memory_bytes == 2 * rounded.counts.memory_bytes
    expected = Int8State.of(state(70)).restored()
    for read in (rounded[key_of("a")], ChunkCache(tmp_path)[key_of("a")]):
        assert same(read, expected)
    assert same(rounded.as_kept(state(70)), expected)
    assert same(exact.as_kept(state(70)), state(70))


def test_scores_move_a_little_and_neither_precision_uses_states_of_the_other(
    tmp_path: Path,
) -> None:
    fresh = scores(pruner())
    cold = scores(pruner(ChunkCache(tmp_path, precision="int8")))
    assert cold != fresh and np.abs(np.subtract(cold, fresh)).max() < 0.1
    warm = ChunkCache(tmp_path, max_memory_bytes=0)
    assert scores(pruner(warm)) == cold, "the folder knows"
    assert warm.counts.disk_hits == len(CHUNKS) and warm.counts.misses == 0
    exact = ChunkCache(tmp_path, precision="model")
    assert list(exact) == [] and exact.disk_size.states == len(CHUNKS)
    assert scores(pruner(exact)) == fresh
    assert exact.counts.misses == len(CHUNKS) and exact.counts.damaged == 0
    again = ChunkCache(tmp_path, precision="int8")
    assert len(dict(again)) == len(CHUNKS) and again.disk_size.states == 2 * len(CHUNKS)
    assert scores(pruner(again)) == cold and again.counts.misses == 0
    again.clear()
    assert not list(tmp_path.glob("*"))


def test_both_precisions_count_for_the_bound(tmp_path: Path) -> None:
    StateFiles(tmp_path).put(key_of("a"), state(50))
    size = StateFiles(tmp_path).size().nbytes
    files = StateFiles(tmp_path, precision="int8", max_bytes=size)
    files.put(key_of("b"), Int8State.of(state(50)))
    assert [path.suffix for path in tmp_path.glob("*.*8")] == [".int8"]
    assert files.evicted == 1 and not list(tmp_path.glob("*.state"))
