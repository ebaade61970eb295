"""Pruning by late reading: chunks are read once, and kept for whatever is asked next."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk, ChunkCache, HeadWeights
from at2_rag.reading.features import FeatureSpec, Quantity
from at2_rag.reading.late import OFFSET
from at2_rag.text.chunks import as_chunk
from tests import brute_force
from tests.independent_reading import CountingModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: list[Any] = [
    "Jane Austen wrote Emma in 1815. It is a novel.",
    {"title": "Bridge", "text": "It spans the harbour."},
    "",
    "The river flows through the old town to the sea.",
    Chunk("Emma"),
]
EIGHT_BITS = 0.2
"""Of a score under random weights, for keys rounded to eight bits."""


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "late")


def counted(pruner: AT2Pruner) -> list[int]:
    """Note the tokens of each of a pruner's model calls from now on."""
    model = CountingModel(tiny_model())
    pruner.scoring_model.run = model.run  # type: ignore[method-assign]
    return model.passes


def question_of(pruner: AT2Pruner, query: str) -> int:
    """Return how many tokens the question has up to the last one of a content word."""
    return pruner.scoring_model.prompts.independent(query, []).rows[-1] + 1


def scores(pruner: AT2Pruner, query: str = QUERY) -> list[float]:
    return [one.score for one in pruner.score(query, CHUNKS)]


@pytest.mark.parametrize("quantity", ["log", "mass"])
def test_scores_are_the_weights_times_the_features(quantity: Quantity) -> None:
    model = tiny_model()
    weights = random_weights(model, tiny_tokenizer(), "late", quantity=quantity)
    pruner = tiny_pruner(weights)
    views = [as_chunk(chunk, 0) for chunk in CHUNKS]
    layout = pruner.scoring_model.prompts.independent(QUERY, views)
    ratio = brute_force.late(model, layout, offset=OFFSET)[:2]
    features = ratio.sigmoid() if quantity == "mass" else ratio
    by_source = np.tensordot(weights.weight[0], features.numpy(), 2) + weights.bias
    assert np.ptp(by_source) > 2 * EIGHT_BITS
    assert scores(pruner) == pytest.approx(by_source.tolist(), abs=EIGHT_BITS)


def test_another_question_runs_no_chunk_through_the_model(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    scores(pruner)
    passes = counted(pruner)
    for query in (QUERY, "what is it called?"):
        passes.clear()
        scores(pruner, query)
        pruner.prune(query, reversed(CHUNKS), top_k=2)
        assert passes == [question_of(pruner, query)] * 2


def test_what_is_kept_changes_no_score(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    fresh = scores(pruner)
    assert scores(pruner) == fresh
    ahead = tiny_pruner(weights)
    ahead.index(CHUNKS)
    passes = counted(ahead)
    assert scores(ahead) == fresh
    assert passes == [question_of(ahead, QUERY)]


def test_a_folder_is_shared_by_pruners(weights: HeadWeights, tmp_path: Path) -> None:
    expected = scores(tiny_pruner(weights, chunk_cache=str(tmp_path / "kept")))
    second = tiny_pruner(weights, chunk_cache=tmp_path / "kept")
    passes = counted(second)
    assert scores(second) == expected
    assert passes == [len(second.scoring_model.prompts.prefix_ids), question_of(second, QUERY)]


def test_weights_for_other_heads_keep_keys_of_their_own(weights: HeadWeights) -> None:
    store: dict[str, Any] = {}
    some = replace(weights, weight=weights.weight * np.array([1, 1, 0, 0], dtype=np.float32))
    first, second = tiny_pruner(weights, chunk_cache=store), tiny_pruner(some, chunk_cache=store)
    scores(first)
    assert scores(second) == scores(tiny_pruner(some))
    # Two layers of two key heads each, or of one.
    assert sorted(len(kept.levels) for kept in store.values()) == [2] * 5 + [4] * 5


@pytest.mark.parametrize("passes", [("late",), ("together", "apart"), ("joint",)], ids=str)
def test_warming_up_reads_the_prefix_and_leaves_nothing(passes: Any) -> None:
    cache = ChunkCache()
    pruner = tiny_pruner(random_weights(tiny_model(), tiny_tokenizer(), *passes), chunk_cache=cache)
    pruner.warm_up()
    assert len(cache) == 0 and cache.counts.misses == 0
    counting = counted(pruner)
    scores(pruner)
    if passes != ("joint",):
        assert len(pruner.scoring_model.prompts.prefix_ids) not in counting


def test_chunks_with_equal_text_tie(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    for copies in (2, 5, 17):
        texts = ["The river flows."] * copies + ["It spans the harbour.", "The river flows."]
        *rivers, harbour, last = [one.score for one in pruner.score(QUERY, texts)]
        assert len({*rivers, last}) == 1 and harbour != last


def test_a_chunk_does_not_know_of_the_others(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    pruner.index(CHUNKS)
    alone = [pruner.score(QUERY, [chunk])[0].score for chunk in CHUNKS]
    assert scores(pruner) == pytest.approx(alone, abs=1e-5)


def test_sentences_are_parts_of_their_chunks(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights)
    sentences = pruner.score_sentences(QUERY, [CHUNKS[0], "Emma"])
    assert [one.text for one in sentences] == [
        "Jane Austen wrote Emma in 1815.",
        "It is a novel.",
        "Emma",
    ]
    passes = counted(pruner)
    result = pruner.prune(QUERY, [CHUNKS[0], "Emma"], unit="sentence", top_k=2)
    assert passes == [question_of(pruner, QUERY)], "for the chunks and the sentences"
    assert len(result.kept) <= 2


def test_late_weights_that_are_all_zero() -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "late", "apart")
    weights.weight[0] = 0
    spec = FeatureSpec("log", ("apart",))
    apart = replace(weights, weight=weights.weight[1:], spec=spec)
    assert scores(tiny_pruner(weights)) == pytest.approx(scores(tiny_pruner(apart)), abs=1e-5)


def test_a_pickled_pruner_computes_the_same(
    weights: HeadWeights, model_folder: Path, tmp_path: Path
) -> None:
    pruner = AT2Pruner.from_pretrained(
        model_folder, dtype="float32", head_weights=weights, chunk_cache=tmp_path / "kept"
    )
    expected = scores(pruner)
    again: AT2Pruner = pickle.loads(pickle.dumps(pruner))
    assert scores(again) == expected
    assert isinstance(again.chunk_cache, ChunkCache) and again.chunk_cache.counts.misses == 0
