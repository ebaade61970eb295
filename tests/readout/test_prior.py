"""The retriever's ranks as a prior to scores."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import InputError
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
TEXTS = [
    "Jane Austen wrote Emma. She was born in Steventon.",
    "The river flows through the old town.",
    "It spans the harbour. Boats pass below it.",
    "Nobody knows when the mill was built.",
]
WEIGHT, COSINE_WEIGHT = 0.7, 2.5


def chunks(*scores: float | None) -> list[Chunk]:
    return [Chunk(TEXTS[index % 4], retrieval_score=score) for index, score in enumerate(scores)]


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    plain = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    return dataclasses.replace(plain, prior_weight=WEIGHT, cosine_weight=COSINE_WEIGHT)


@pytest.fixture(scope="module")
def pruner(weights: HeadWeights) -> AT2Pruner:
    return tiny_pruner(weights)


@pytest.mark.parametrize(
    ("scores", "reciprocal"),
    [
        ([0.9, 0.1, 0.5], [1, 1 / 3, 1 / 2]),
        ([-3.0, -1.0], [1 / 2, 1]),  # distances turned around
        ([2.0, 2.0, 1.0, 2.0], [1 / 2, 1 / 2, 1 / 4, 1 / 2]),
        ([math.inf, 0.0, -math.inf], [1, 1 / 2, 1 / 3]),
        ([7.0], [1]),
        ([5, 1, 1], [1, 1 / 2.5, 1 / 2.5]),
    ],
    ids=str,
)
def test_terms_are_reciprocal_ranks_around_their_mean(
    scores: list[float], reciprocal: list[float]
) -> None:
    mean = sum(reciprocal) / len(reciprocal)
    terms = prior_terms(chunks(*scores), "score")
    assert terms == pytest.approx([one - mean for one in reciprocal])


def test_unknown_ranks_change_nothing() -> None:
    terms = prior_terms(chunks(0.4, None, 0.9, math.nan), "score")
    assert terms == pytest.approx([-0.25, 0.0, 0.25, 0.0])
    assert prior_terms(chunks(None, math.nan), "score") is None
    assert prior_terms([], "score") is None and prior_terms([], "order") is None


def test_the_order_is_a_ranking_whatever_the_scores() -> None:
    by_order, falling = prior_terms(chunks(0.1, 0.2, 0.3), "order"), chunks(3.0, 2.0, 1.0)
    assert by_order is not None and by_order.tolist() == prior_terms(falling, "score").tolist()  # type: ignore[union-attr]


def test_cosines_count_as_they_are() -> None:
    terms = prior_terms(chunks(0.8, None, -0.2, 0.3, math.nan), "cosine")
    assert terms == pytest.approx([0.5, 0.0, -0.5, 0.0, 0.0])
    assert prior_terms(chunks(1.003, 1.0), "cosine") == pytest.approx([0.0015, -0.0015])
    assert prior_terms(chunks(None, math.nan), "cosine") is None


@pytest.mark.parametrize("score", [1.5, -12.0, math.inf])
def test_what_is_no_cosine_is_refused(pruner: AT2Pruner, score: float) -> None:
    message = f"the retrieval_score of chunk 1 is {score}, .* within -1 and 1; .* prior='score'"
    with pytest.raises(InputError, match=message):
        pruner.prune(QUERY, chunks(0.5, score), top_k=1, prior="cosine")


@pytest.mark.parametrize("prior", ["score", "order", "cosine"])
def test_scores_rise_by_the_weighted_terms(pruner: AT2Pruner, prior: Prior) -> None:
    objects = chunks(0.2, None, 0.9, 0.4)
    plain = [scored.score for scored in pruner.score(QUERY, objects)]
    terms = prior_terms(objects, prior)
    assert terms is not None
    expected = plain + (COSINE_WEIGHT if prior == "cosine" else WEIGHT) * terms
    result = pruner.prune(QUERY, objects, top_k=4, prior=prior, order="original")
    assert [scored.score for scored in result.kept] == pytest.approx(expected.tolist())
    best = pruner.prune(QUERY, objects, top_k=1, prior=prior).kept[0]
    assert best.index == int(np.argmax(expected))
    [batched] = pruner.prune_batch([(QUERY, objects)], top_k=4, prior=prior, order="original")
    by_unit = pruner.prune(QUERY, objects, top_k=99, prior=prior, unit="sentence", order="original")
    for other in (batched, by_unit):
        assert [one.score for one in other.kept] == pytest.approx(expected.tolist(), abs=1e-4)


def test_without_a_prior_retrieval_scores_are_not_read(pruner: AT2Pruner) -> None:
    with_scores = pruner.prune(QUERY, chunks(0.2, 0.1, 0.9, 0.4), top_k=4)
    without = pruner.prune(QUERY, TEXTS, top_k=4)
    assert [one.score for one in with_scores.kept] == [one.score for one in without.kept]


@pytest.mark.parametrize("prior", ["score", "cosine"])
def test_no_score_at_all_is_noted_and_changes_nothing(pruner: AT2Pruner, prior: Prior) -> None:
    plain = pruner.prune(QUERY, TEXTS, top_k=2)
    result = pruner.prune(QUERY, TEXTS, top_k=2, prior=prior)
    assert [one.score for one in result.kept] == [one.score for one in plain.kept]
    assert result.notes == (f"prior='{prior}' changed nothing: no chunk has a retrieval_score.",)
    assert pruner.prune(QUERY, [], top_k=2, prior=prior).kept == ()


def test_mappings_have_retrieval_scores_too(pruner: AT2Pruner) -> None:
    scores: tuple[Any, ...] = (1, 2, 3, np.float32(4.5))
    mappings = [
        {"text": text, "retrieval_score": score} for text, score in zip(TEXTS, scores, strict=True)
    ]
    as_chunks = pruner.prune(QUERY, chunks(*scores), top_k=4, prior="score")
    as_mappings = pruner.prune(QUERY, mappings, top_k=4, prior="score")
    assert [one.score for one in as_mappings.kept] == [one.score for one in as_chunks.kept]
    assert as_mappings.kept[0].chunk is mappings[as_mappings.kept[0].index]


@pytest.mark.parametrize(
    ("missing", "prior", "message"),
    [
        ("prior_weight", "order", "prior is 'order', but the head weights have no weight"),
        ("cosine_weight", "cosine", "`at2-rag calibrate --prior cosine` wrote"),
    ],
)
def test_weights_that_did_not_learn_it_refuse(
    weights: HeadWeights, missing: str, prior: Prior, message: str
) -> None:
    changes: dict[str, Any] = {missing: None}
    pruner = tiny_pruner(dataclasses.replace(weights, **changes))
    with pytest.raises(InputError, match=message):
        pruner.prune(QUERY, TEXTS, top_k=1, prior=prior)
    other: Prior = "cosine" if prior == "order" else "order"
    assert pruner.prune(QUERY, chunks(0.2, 0.4), top_k=1, prior=other).kept


def test_the_weights_are_saved_with_the_others(weights: HeadWeights, tmp_path: Path) -> None:
    weights.save(tmp_path)
    expected = {"score": WEIGHT, "order": WEIGHT, "cosine": COSINE_WEIGHT}
    assert HeadWeights.load(tmp_path).prior_weights == expected
    dataclasses.replace(weights, prior_weight=None, cosine_weight=None).save(tmp_path)
    assert HeadWeights.load(tmp_path).prior_weights == {}
