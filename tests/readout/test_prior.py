"""The retriever's ranks as a prior to scores."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import ChunkTypeError, HeadWeightsError, InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.prior import prior_terms
from at2_rag.text.chunks import Prior
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "who wrote the novel Emma?"
TEXTS = [
    "Jane Austen wrote Emma. She was born in Steventon.",
    "The river flows through the old town.",
    "It spans the harbour. Boats pass below it.",
    "Nobody knows when the mill was built.",
]
WEIGHT, COSINE_WEIGHT = 0.7, 2.5


def chunks(*scores: float | None) -> list[Chunk]:
    return [Chunk(TEXTS[place % 4], retrieval_score=score) for place, score in enumerate(scores)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: Any) -> HeadWeights:
    found = random_weights(model, tiny_tokenizer(), "together", "apart")
    return dataclasses.replace(found, prior_weight=WEIGHT, cosine_weight=COSINE_WEIGHT)


@pytest.fixture(scope="module")
def pruner(model: Any, weights: HeadWeights) -> AT2Pruner:
    return AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=weights)


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
    assert terms == pytest.approx([own - mean for own in reciprocal])


def test_only_the_order_of_scores_counts() -> None:
    one = prior_terms(chunks(0.1, 0.7, 0.3), "score")
    other = prior_terms(chunks(-90.0, 1e9, 0.0), "score")
    assert one is not None and other is not None
    assert one.tolist() == other.tolist()


def test_unknown_ranks_change_nothing() -> None:
    terms = prior_terms(chunks(0.4, None, 0.9, math.nan), "score")
    assert terms == pytest.approx([-0.25, 0.0, 0.25, 0.0])
    assert prior_terms(chunks(None, math.nan), "score") is None
    assert prior_terms([], "score") is None and prior_terms([], "order") is None


def test_the_order_is_a_ranking_whatever_the_scores() -> None:
    by_order = prior_terms(chunks(0.1, 0.2, 0.3), "order")
    assert by_order is not None
    falling = prior_terms(chunks(3.0, 2.0, 1.0), "score")
    assert falling is not None and by_order.tolist() == falling.tolist()


def test_cosines_count_as_they_are() -> None:
    terms = prior_terms(chunks(0.8, None, -0.2, 0.3, math.nan), "cosine")
    assert terms == pytest.approx([0.5, 0.0, -0.5, 0.0, 0.0])
    assert prior_terms(chunks(1.003, 1.0), "cosine") == pytest.approx([0.0015, -0.0015])
    assert prior_terms(chunks(None, math.nan), "cosine") is None


@pytest.mark.parametrize("score", [1.5, -12.0, math.inf])
def test_what_is_no_cosine_is_refused(pruner: AT2Pruner, score: float) -> None:
    told = f"the retrieval_score of chunk 1 is {score}, .* within -1 and 1; .* prior='score'"
    with pytest.raises(InputError, match=told):
        pruner.prune(QUERY, chunks(0.5, score), top_k=1, prior="cosine")


@pytest.mark.parametrize("prior", ["score", "order", "cosine"])
def test_scores_rise_by_the_weighted_terms(pruner: AT2Pruner, prior: Prior) -> None:
    given = chunks(0.2, None, 0.9, 0.4)
    plain = [own.score for own in pruner.score(QUERY, given)]
    terms = prior_terms(given, prior)
    assert terms is not None
    result = pruner.prune(QUERY, given, top_k=4, prior=prior, order="original")
    weight = COSINE_WEIGHT if prior == "cosine" else WEIGHT
    expected = np.array(plain) + weight * terms
    assert [own.score for own in result.kept] == pytest.approx(expected.tolist())
    assert all(own.chunk is one for own, one in zip(result.kept, given, strict=True))
    best = pruner.prune(QUERY, given, top_k=1, prior=prior).kept[0]
    assert best.index == int(np.argmax(expected))
    [batched] = pruner.prune_batch([(QUERY, given)], top_k=4, prior=prior, order="original")
    assert [own.score for own in batched.kept] == pytest.approx(expected.tolist(), abs=1e-4)
    by_unit = pruner.prune(QUERY, given, top_k=99, prior=prior, unit="sentence", order="original")
    assert [own.score for own in by_unit.kept] == pytest.approx(expected.tolist(), abs=1e-4)


def test_without_it_retrieval_scores_are_not_read(pruner: AT2Pruner) -> None:
    with_scores = pruner.prune(QUERY, chunks(0.2, 0.1, 0.9, 0.4), top_k=4)
    without = pruner.prune(QUERY, TEXTS, top_k=4)
    assert [own.score for own in with_scores.kept] == [own.score for own in without.kept]


@pytest.mark.parametrize("prior", ["score", "cosine"])
def test_no_score_at_all_is_said_and_changes_nothing(pruner: AT2Pruner, prior: Prior) -> None:
    plain = pruner.prune(QUERY, TEXTS, top_k=2)
    result = pruner.prune(QUERY, TEXTS, top_k=2, prior=prior)
    assert [own.score for own in result.kept] == [own.score for own in plain.kept]
    assert result.notes == (f"prior='{prior}' changed nothing: no chunk has a retrieval_score.",)
    assert pruner.prune(QUERY, [], top_k=2, prior=prior).kept == ()


def test_mappings_have_retrieval_scores_too(pruner: AT2Pruner) -> None:
    given = [
        {"text": text, "retrieval_score": score}
        for text, score in zip(TEXTS, (1, 2, 3, 4.5), strict=True)
    ]
    as_chunks = pruner.prune(QUERY, chunks(1, 2, 3, 4.5), top_k=4, prior="score")
    as_mappings = pruner.prune(QUERY, given, top_k=4, prior="score")
    assert [own.score for own in as_mappings.kept] == [own.score for own in as_chunks.kept]
    assert as_mappings.kept[0].chunk is given[as_mappings.kept[0].index]
    numpy = chunks(*np.array([1, 2, 3, 4.5], dtype=np.float32))
    assert pruner.prune(QUERY, numpy, top_k=4, prior="score").kept[0].score == pytest.approx(
        as_chunks.kept[0].score
    )


@pytest.mark.parametrize("score", ["0.5", True, [1.0], 1j])
def test_what_is_no_number_is_refused(pruner: AT2Pruner, score: Any) -> None:
    with pytest.raises(ChunkTypeError, match="chunk 1 has a retrieval_score of type"):
        pruner.prune(QUERY, ["a text", {"text": "b", "retrieval_score": score}], top_k=1)


def test_weights_that_did_not_learn_it_refuse(model: Any, weights: HeadWeights) -> None:
    plain = dataclasses.replace(weights, prior_weight=None)
    pruner = AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=plain)
    with pytest.raises(InputError, match="prior is 'order', but the head weights have no weight"):
        pruner.prune(QUERY, TEXTS, top_k=1, prior="order")
    assert pruner.prune(QUERY, chunks(0.2, 0.4), top_k=1, prior="cosine").kept
    plain = dataclasses.replace(weights, cosine_weight=None)
    pruner = AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=plain)
    with pytest.raises(InputError, match="`at2-rag calibrate --prior cosine` wrote"):
        pruner.prune(QUERY, TEXTS, top_k=1, prior="cosine")


def test_other_words_are_refused(pruner: AT2Pruner) -> None:
    with pytest.raises(InputError, match="prior is 'rank'; pass 'score', 'order' or 'cosine'"):
        pruner.prune(QUERY, TEXTS, top_k=1, prior="rank")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prior_weight", "cosine_weight"])
def test_the_weight_is_saved_with_the_others(
    weights: HeadWeights, tmp_path: Path, name: str
) -> None:
    weights.save(tmp_path)
    assert HeadWeights.load(tmp_path).prior_weights == {
        "score": WEIGHT,
        "order": WEIGHT,
        "cosine": COSINE_WEIGHT,
    }
    description = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    for bad in (-1, "much", float("inf")):
        changed = {**description, name: bad}
        (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(changed))
        with pytest.raises(HeadWeightsError):
            HeadWeights.load(tmp_path)
    del description[name]
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(description))
    assert getattr(HeadWeights.load(tmp_path), name) is None
