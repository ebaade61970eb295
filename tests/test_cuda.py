"""The same code on CUDA: scores are those of the CPU, and states are kept in main memory.

Skipped where there is no such device.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from at2_rag import AT2Pruner, Chunk, ChunkCache
from at2_rag.model.loading import preferred_dtype
from at2_rag.reading.features import Pass
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

QUERY = "who opened the bridge?"
CHUNKS = [Chunk(f"The bridge {number} was opened. " * (1 + number % 4)) for number in range(12)]


def make(device: str, *passes: Pass, store: ChunkCache | None = None) -> AT2Pruner:
    model = tiny_model()
    weights = random_weights(model, tiny_tokenizer(), *passes)
    return tiny_pruner(weights, model.to(device), chunk_cache=store)


def scores(pruner: AT2Pruner) -> list[float]:
    return [scored.score for scored in pruner.score(QUERY, CHUNKS)]


@pytest.mark.parametrize("passes", [("joint",), ("together",), ("together", "apart")])
def test_scores_are_those_of_the_cpu(passes: tuple[Pass, ...]) -> None:
    assert scores(make("cuda", *passes)) == pytest.approx(scores(make("cpu", *passes)), abs=1e-3)


def test_states_are_kept_in_main_memory_and_give_the_same_scores() -> None:
    store = ChunkCache()
    pruner = make("cuda", "together", "apart", store=store)
    cold = scores(pruner)
    assert store.counts.misses == len(CHUNKS)
    for key in store:
        assert store[key].levels.device.type == "cpu"
    assert scores(pruner) == pytest.approx(cold, abs=1e-5)
    assert store.counts.misses == len(CHUNKS)


def test_states_written_on_cuda_are_read_there_from_disk(tmp_path: Path) -> None:
    cold = scores(make("cuda", "together", store=ChunkCache(tmp_path)))
    store = ChunkCache(tmp_path, max_memory_bytes=0)
    assert scores(make("cuda", "together", store=store)) == pytest.approx(cold, abs=1e-5)
    assert store.counts.disk_hits == len(CHUNKS)


def test_several_queries_share_calls_there() -> None:
    pruner = make("cuda", "together", "apart")
    batch = pruner.prune_batch([(QUERY, CHUNKS), ("what was it?", CHUNKS[:5])], top_k=3)
    assert [scored.score for scored in batch[0].kept] == pytest.approx(
        [scored.score for scored in pruner.prune(QUERY, CHUNKS, top_k=3).kept], abs=1e-3
    )


def test_the_number_format_is_one_that_the_device_is_fast_at() -> None:
    device = torch.device("cuda")
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert (preferred_dtype(device) == torch.bfloat16) is native
