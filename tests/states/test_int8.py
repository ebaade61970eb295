"""States in eight bits: near what they were made from, half the bytes, never taken for exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from at2_rag import AT2Pruner, ChunkCache
from at2_rag.errors import InputError, ScoringError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.states.files import StateFiles
from at2_rag.states.int8 import Int8State
from tests.states.test_store import same, state
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHUNKS = [f"Emma {number} was written in Chawton." * (1 + number % 3) for number in range(9)]
QUERY = "Who wrote Emma 4?"


def pruner(store: ChunkCache | None = None) -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = random_weights(model, tokenizer, "together", "apart")
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights, chunk_cache=store)


def scores(pruner: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in pruner.score(QUERY, CHUNKS)]


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


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_store_in_eight_bits_holds_less_and_gives_the_same_each_time(
    tmp_path: Path, in_memory: bool
) -> None:
    exact, store = ChunkCache(), ChunkCache(tmp_path, precision="int8")
    assert same(exact.as_kept(state(70)), state(70))
    exact["a" * 64] = store["a" * 64] = state(70)  # rows of four numbers: a scale as large
    assert exact.counts.memory_bytes == 2 * store.counts.memory_bytes
    expected = Int8State.of(state(70)).restored()
    read = (store if in_memory else ChunkCache(tmp_path))["a" * 64]
    assert same(read, expected) and same(store.as_kept(state(70)), expected)
    [path] = tmp_path.glob("*.int8")
    assert load(path.read_bytes()[24:])["keys"].dtype == torch.int8


def test_scores_move_a_little_and_are_the_same_cold_and_warm(tmp_path: Path) -> None:
    fresh = scores(pruner())
    rounded = pruner(ChunkCache(tmp_path, precision="int8"))
    cold = scores(rounded)
    assert cold != fresh and np.abs(np.subtract(cold, fresh)).max() < 0.1
    assert scores(rounded) == cold
    disk = ChunkCache(tmp_path, max_memory_bytes=0)
    assert scores(pruner(disk)) == cold, "the folder knows"
    assert disk.counts.disk_hits == len(CHUNKS) and disk.counts.misses == 0


def test_neither_precision_uses_states_of_the_other(tmp_path: Path) -> None:
    fresh = scores(pruner())
    rounded = scores(pruner(ChunkCache(tmp_path, precision="int8")))
    exact = ChunkCache(tmp_path, precision="model")
    assert list(exact) == [] and exact.disk_size.states == len(CHUNKS)
    assert scores(pruner(exact)) == fresh
    assert exact.counts.misses == len(CHUNKS) and exact.counts.damaged == 0
    again = ChunkCache(tmp_path, precision="int8")
    assert scores(pruner(again)) == rounded and again.counts.misses == 0
    assert len(dict(again)) == len(CHUNKS) and again.disk_size.states == 2 * len(CHUNKS)
    again.clear()
    assert not list(tmp_path.glob("*"))


def test_a_file_under_the_ending_of_another_precision_is_damage(tmp_path: Path) -> None:
    StateFiles(tmp_path, precision="int8").put("a" * 64, Int8State.of(state(1)))
    (tmp_path / f"{'a' * 64}.int8").rename(tmp_path / f"{'a' * 64}.state")
    files = StateFiles(tmp_path, precision="model")
    assert files.get("a" * 64) is None and files.damaged == 1


def test_both_precisions_count_for_the_bound(tmp_path: Path) -> None:
    StateFiles(tmp_path).put("a" * 64, state(50))
    size = StateFiles(tmp_path).size().nbytes
    files = StateFiles(tmp_path, precision="int8", max_bytes=size)
    files.put("b" * 64, Int8State.of(state(50)))
    assert [path.suffix for path in tmp_path.glob("*.*8")] == [".int8"]
    assert files.evicted == 1 and not list(tmp_path.glob("*.state"))


def test_the_precision_is_noted_beside_the_bound(tmp_path: Path) -> None:
    assert StateFiles(tmp_path).precision == "model"
    assert not (tmp_path / "folder.json").exists()
    StateFiles(tmp_path, max_bytes=10**6)
    assert json.loads((tmp_path / "folder.json").read_text()) == {"max_bytes": 10**6}
    StateFiles(tmp_path, precision="int8")
    assert (StateFiles(tmp_path).precision, StateFiles(tmp_path).max_bytes) == ("int8", 10**6)
    StateFiles(tmp_path, precision="model")
    assert json.loads((tmp_path / "folder.json").read_text()) == {
        "precision": "model",
        "max_bytes": 10**6,
    }
    (tmp_path / "folder.json").write_text('{"precision": "int2", "max_bytes": 5000}')
    files = StateFiles(tmp_path)
    assert (files.precision, files.max_bytes) == ("model", 5000)


@pytest.mark.parametrize("folder", [True, False])
def test_an_unknown_precision_is_refused(tmp_path: Path, folder: bool) -> None:
    with pytest.raises(InputError, match="precision is 'int4'; pass 'model' or 'int8'"):
        ChunkCache(tmp_path if folder else None, precision="int4")  # type: ignore[arg-type]


def test_numbers_that_overflowed_are_recognised_in_the_cache_too() -> None:
    broken = pruner(ChunkCache(precision="int8"))
    with torch.no_grad():
        for layer in broken.scoring_model._view.layers:
            layer.self_attn.k_proj.weight.fill_(torch.inf)
    for _ in range(2):
        with pytest.raises(ScoringError, match="not finite"):
            scores(broken)
