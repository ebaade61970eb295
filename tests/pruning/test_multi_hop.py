"""Asking again beside the best chunk."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk, ChunkCache
from at2_rag.errors import HeadWeightsError, InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.options import IfUnanswerable
from at2_rag.reading.features import FeatureSpec
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import (
    MOST_WORDS,
    MultiHop,
    after_multi_hop,
    divided_anew,
    multi_hop_question,
)
from at2_rag.readout.scores import ChunkScores
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "where was the author of Emma born?"
CHUNKS = [
    Chunk("Jane Austen wrote Emma.", "Emma"),
    Chunk("The river flows through the old town."),
    Chunk("Steventon is where Jane Austen was born. It is small.", "Steventon"),
    Chunk("Boats pass below it.", "The bridge"),
    Chunk("A lamp stood in the tower."),
]
CHUNK = (0.2, 0.7, 0.1, 0.3)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: Any) -> HeadWeights:
    found = random_weights(model, tiny_tokenizer(), "together", "apart")
    second = np.random.default_rng(5).normal(size=found.weight.shape[1:]).astype(np.float32)
    return dataclasses.replace(
        found,
        multi_hop=MultiHop(second, 0.5, CHUNK),
        calibration=Calibration(-found.weight, 0.25, (0.3, 0.9, 0.1, 1.0), (0.2, 0.2, 1.5)),
        prior_weight=0.6,
    )


def make(model: Any, weights: HeadWeights, **options: Any) -> AT2Pruner:
    return AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=weights, **options)


@pytest.fixture(scope="module")
def pruner(model: Any, weights: HeadWeights) -> AT2Pruner:
    return make(model, weights)


def by_hand(model: Any, pruner: AT2Pruner, first: list[float]) -> tuple[list[float], list[float]]:
    """Return the scores and probabilities after a multi-hop, by another pruner's reading.

    Its head weights are the multi-hop weights, so that it scores the other chunks for the longer
    question.
    """
    own = pruner.head_weights
    assert own.multi_hop is not None and own.calibration is not None
    second = dataclasses.replace(
        own,
        weight=own.multi_hop.weight[None],
        bias=0.0,
        spec=FeatureSpec(own.spec.quantity, ("together",)),
        calibration=None,
        multi_hop=None,
    )
    reader = make(model, second)
    best = int(np.argmax(first))
    others = [place for place in range(len(first)) if place != best]
    question = f"{QUERY}\n{CHUNKS[best].rendered}".replace("\n", " ").split()
    assert multi_hop_question(QUERY, CHUNKS[best]).split() == question
    read = reader.score(multi_hop_question(QUERY, CHUNKS[best]), [CHUNKS[n] for n in others])
    raw = [0.5 * first[n] + own.score for n, own in zip(others, read, strict=True)]
    mass = math.fsum(math.exp(first[n]) for n in others)
    shift = math.log(mass / math.fsum(map(math.exp, raw)))
    scores = list(first)
    for place, value in zip(others, raw, strict=True):
        scores[place] = value + shift
    scores[best] = max(scores[best], max(scores[n] for n in others) + 1e-6)
    evidence = max(0.25 + own.bias - value for value in plain(pruner))
    slope, share, of_best, constant = CHUNK
    fixed = of_best * evidence + constant - share * math.log(mass)
    likely = [1 / (1 + math.exp(-((slope + share) * scores[n] + fixed))) for n in others]
    first_likely = own.calibration.probabilities(first, evidence)[best]
    likely.insert(best, max(float(first_likely), *likely))
    return scores, likely


def plain(pruner: AT2Pruner) -> list[float]:
    return [own.score for own in pruner.score(QUERY, CHUNKS)]


def scored(result: Any) -> tuple[list[float], list[float]]:
    every = sorted((*result.kept, *result.dropped), key=lambda own: int(own.index))
    return [own.score for own in every], [own.probability for own in every]


def test_the_question_is_asked_again_beside_the_best_chunk(model: Any, pruner: AT2Pruner) -> None:
    scores, likely = by_hand(model, pruner, plain(pruner))
    result = pruner.prune(QUERY, CHUNKS, top_k=2, multi_hop=True)
    assert scored(result)[0] == pytest.approx(scores, abs=1e-4)
    assert scored(result)[1] == pytest.approx(likely, abs=1e-4)
    assert [own.index for own in result.kept] == sorted(range(5), key=lambda n: -scores[n])[:2]
    assert result.kept[0].index == int(np.argmax(plain(pruner)))
    assert result.answerable == pruner.prune(QUERY, CHUNKS, top_k=2).answerable
    limited = pruner.prune(QUERY, CHUNKS, max_missed=0.5, multi_hop=True)
    rest = [likely[own.index] for own in limited.dropped]
    assert math.fsum(rest) <= 0.5


def test_a_prior_weighs_in_before(model: Any, pruner: AT2Pruner) -> None:
    terms = np.array([1 / rank for rank in range(1, 6)])
    first = (np.array(plain(pruner)) + 0.6 * (terms - terms.mean())).tolist()
    result = pruner.prune(QUERY, CHUNKS, top_k=5, prior="order", multi_hop=True)
    assert scored(result)[0] == pytest.approx(by_hand(model, pruner, first)[0], abs=1e-4)


def test_batches_and_sentences_do_the_same(pruner: AT2Pruner) -> None:
    alone = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    other = "who wrote the novel?"
    first, second = pruner.prune_batch(
        [(QUERY, CHUNKS), (other, CHUNKS[:3])], top_k=3, multi_hop=True
    )
    assert scored(first)[0] == pytest.approx(scored(alone)[0], abs=1e-4)
    apart = pruner.prune(other, CHUNKS[:3], top_k=3, multi_hop=True)
    assert scored(second)[0] == pytest.approx(scored(apart)[0], abs=1e-4)
    by_unit = pruner.prune(QUERY, CHUNKS, top_k=99, unit="sentence", multi_hop=True)
    assert scored(by_unit)[0] == pytest.approx(scored(alone)[0], abs=1e-4)


def test_nothing_is_read_twice(model: Any, weights: HeadWeights) -> None:
    store = ChunkCache()
    pruner = make(model, weights, chunk_cache=store)
    with_store = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    counts = store.counts
    assert (counts.misses, counts.memory_hits) == (5, 4)
    without = make(model, weights).prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    assert scored(with_store)[0] == pytest.approx(scored(without)[0], abs=1e-4)
    again = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    assert store.counts.misses == 5
    assert scored(again)[0] == pytest.approx(scored(without)[0], abs=1e-4)


def test_a_tolerance_asks_again_where_the_best_alone_does_not_meet_it(pruner: AT2Pruner) -> None:
    once = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=False)
    again = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=True)
    assert scored(pruner.prune(QUERY, CHUNKS, top_k=5)) == scored(once)
    rest = math.fsum(own.probability or 0 for own in once.kept[1:])
    met = pruner.prune(QUERY, CHUNKS, max_missed=rest + 0.01)
    assert scored(met) == scored(once) and len(met.kept) == 1
    missed = pruner.prune(QUERY, CHUNKS, max_missed=rest - 0.01)
    assert scored(missed) == scored(again)
    assert scored(pruner.prune(QUERY, CHUNKS, max_missed=rest - 0.01, multi_hop=False)) == scored(
        once
    )
    by_unit = pruner.prune(QUERY, CHUNKS, max_missed=rest - 0.01, unit="sentence")
    assert scored(by_unit)[0] == pytest.approx(scored(again)[0], abs=1e-4)
    [batched, other] = pruner.prune_batch(
        [(QUERY, CHUNKS), (QUERY, CHUNKS[:1])], max_missed=rest - 0.01
    )
    assert scored(batched)[0] == pytest.approx(scored(again)[0], abs=1e-4)
    assert len(other.kept) == 1


def test_of_many_tokens_a_tolerance_asks_again_with_a_store_only(
    model: Any, weights: HeadWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = sum(len(tiny_tokenizer()(own.rendered)["input_ids"]) for own in CHUNKS)
    monkeypatch.setattr("at2_rag.pruning.scorer.MOST_KEPT", tokens // 2)
    without, store = make(model, weights), make(model, weights, chunk_cache=ChunkCache())
    once = without.prune(QUERY, CHUNKS, top_k=5, multi_hop=False)
    again = without.prune(QUERY, CHUNKS, top_k=5, multi_hop=True)
    assert scored(without.prune(QUERY, CHUNKS, max_missed=0.0)) == scored(once)
    kept = store.prune(QUERY, CHUNKS, max_missed=0.0)
    assert scored(kept)[0] == pytest.approx(scored(again)[0], abs=1e-4)
    assert scored(again)[0] != pytest.approx(scored(once)[0], abs=1e-2)


def test_a_batch_asks_again_as_each_alone_does(
    model: Any, weights: HeadWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = sum(len(tiny_tokenizer()(own.rendered)["input_ids"]) for own in CHUNKS)
    monkeypatch.setattr("at2_rag.pruning.scorer.MOST_KEPT", 2 * tokens)
    pruner = make(model, weights)
    many = [Chunk(f"{own.text} {place}", own.title) for place in range(4) for own in CHUNKS]
    asked = [(QUERY, CHUNKS), ("who wrote Emma?", CHUNKS), (QUERY, many)]
    together = pruner.prune_batch(asked, max_missed=0.0)
    for (query, given), found in zip(asked, together, strict=True):
        alone = pruner.prune(query, given, max_missed=0.0)
        assert scored(found)[0] == pytest.approx(scored(alone)[0], abs=1e-4)


def test_it_is_not_asked_again_where_that_changes_nothing(model: Any, weights: HeadWeights) -> None:
    pruner = make(model, weights)
    once = pruner.prune(QUERY, CHUNKS, top_k=5)
    again = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=True)
    assert scored(pruner.prune(QUERY, CHUNKS, max_missed=0.0, top_k=1)) == scored(once)
    by_unit = pruner.prune(QUERY, CHUNKS, max_missed=0.0, top_k=1, unit="sentence")
    assert scored(by_unit)[0] == pytest.approx(scored(again)[0], abs=1e-4)
    assert weights.calibration is not None
    doubting = dataclasses.replace(weights.calibration, call=(0.0, 0.0, -9.0))
    doubter = make(model, dataclasses.replace(weights, calibration=doubting))
    cases: list[tuple[IfUnanswerable, Any]]
    cases = [("keep_none", once), ("keep_best", once), ("flag", again)]
    for if_unanswerable, expected in cases:
        found = doubter.prune(QUERY, CHUNKS, max_missed=0.0, if_unanswerable=if_unanswerable)
        assert scored(found)[0] == pytest.approx(scored(expected)[0], abs=1e-4)


def test_states_between_two_readings_are_held_in_turn(model: Any, weights: HeadWeights) -> None:
    pruner = make(model, weights)
    scorer = pruner._scorer
    held, most, guard = 0, 0, threading.Lock()
    real = scorer._scores_of

    def both_readings(*arguments: Any) -> Any:
        nonlocal held, most
        with guard:
            held += 1
            most = max(most, held)
        try:
            return real(*arguments)
        finally:
            with guard:
                held -= 1

    scorer._scores_of = both_readings  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(12) as executor:
        found = list(executor.map(lambda _: pruner.prune(QUERY, CHUNKS, max_missed=0.0), range(36)))
    assert 0 < most <= 1 + (os.cpu_count() or 1)
    assert all(scored(own) == scored(found[0]) for own in found)


def test_weights_without_it_meet_a_tolerance_without(model: Any, weights: HeadWeights) -> None:
    plain = make(model, dataclasses.replace(weights, multi_hop=None))
    found = plain.prune(QUERY, CHUNKS, max_missed=0.0)
    assert scored(found) == scored(make(model, weights).prune(QUERY, CHUNKS, top_k=5))


def test_one_chunk_alone_is_not_asked_about_again(pruner: AT2Pruner) -> None:
    once = pruner.prune(QUERY, CHUNKS[:1], top_k=1)
    again = pruner.prune(QUERY, CHUNKS[:1], top_k=1, multi_hop=True)
    assert scored(once) == scored(again)
    assert pruner.prune(QUERY, [], top_k=1, multi_hop=True).kept == ()


def test_a_long_chunk_is_cut_in_the_question() -> None:
    long = Chunk(" ".join(map(str, range(MOST_WORDS * 2))), "A title")
    words = multi_hop_question(QUERY, long).removeprefix(f"{QUERY}\n").split()
    assert words == ["A", "title", *map(str, range(MOST_WORDS - 2))]
    assert multi_hop_question(QUERY, Chunk("")) == f"{QUERY}\n"


def test_a_question_too_long_is_not_asked_again(weights: HeadWeights) -> None:
    small = tiny_model(max_position_embeddings=500)
    bound = random_weights(small, tiny_tokenizer(), "together", "apart")
    pruner = make(small, dataclasses.replace(bound, multi_hop=weights.multi_hop))
    given = [Chunk(f"{name} wrote Emma. " * 50) for name in ("Jane", "Ada", "Bela")]
    once = pruner.prune(QUERY, given, top_k=3)
    again = pruner.prune(QUERY, given, top_k=3, multi_hop=True)
    assert [own.score for own in again.kept] == [own.score for own in once.kept]
    short = [Chunk("Jane wrote Emma."), Chunk("The sea."), Chunk("The mill.")]
    once = pruner.prune(QUERY, short, top_k=3)
    again = pruner.prune(QUERY, short, top_k=3, multi_hop=True)
    assert [own.score for own in again.kept] != [own.score for own in once.kept]


def test_the_others_keep_their_share() -> None:
    first, second = np.array([1.0, -2.0, 0.5]), np.array([10.0, 12.0, 9.0])
    anew = divided_anew(first, second)
    assert np.exp(anew).sum() == pytest.approx(np.exp(first).sum())
    assert np.diff(anew) == pytest.approx(np.diff(second))
    own = MultiHop(np.zeros((1, 1), np.float32), 1.0, CHUNK)
    read = ChunkScores(np.array([0.0, 3.0, 2.9, 2.8]))
    after = after_multi_hop(read, 1, np.array([0.0, 0.0, 50.0]), own)
    assert int(np.argmax(after.scores)) == 1  # the best stays first, whatever the others gain
    assert after.scores[1] > after.scores[3] > 3.4
    assert after.probabilities is None


def test_weights_that_did_not_learn_it_refuse(model: Any, weights: HeadWeights) -> None:
    pruner = make(model, dataclasses.replace(weights, multi_hop=None))
    with pytest.raises(InputError, match="multi_hop is True, but the head weights"):
        pruner.prune(QUERY, CHUNKS, top_k=1, multi_hop=True)
    with pytest.raises(InputError, match="multi_hop is 'yes'; pass True or False, or None"):
        make(model, weights).prune(QUERY, CHUNKS, top_k=1, multi_hop="yes")  # type: ignore[arg-type]


def test_the_weights_are_saved_and_checked(weights: HeadWeights, tmp_path: Path) -> None:
    weights.save(tmp_path)
    found = HeadWeights.load(tmp_path).multi_hop
    assert found is not None and weights.multi_hop is not None
    assert found.numbers() == weights.multi_hop.numbers()
    assert np.array_equal(found.weight, weights.multi_hop.weight)
    description = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    for bad in ("x", {"first_score": 1.0}, {**description["multi_hop"], "first_score": -1.0}):
        changed = {**description, "multi_hop": bad}
        (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(changed))
        with pytest.raises(HeadWeightsError):
            HeadWeights.load(tmp_path)
    with pytest.raises(HeadWeightsError, match="the multi-hop weights have the shape"):
        wrong = MultiHop(np.zeros((1, 1), np.float32), 1.0, CHUNK)
        dataclasses.replace(weights, multi_hop=wrong)
    with pytest.raises(HeadWeightsError, match="NaN or infinity"):
        MultiHop(np.full((1, 1), np.nan, np.float32), 1.0, CHUNK)
    with pytest.raises(HeadWeightsError, match="expected 5 finite"):
        MultiHop(np.zeros((1, 1), np.float32), 1.0, (1.0,))
