"""The question read again beside the best chunk."""

from __future__ import annotations

import dataclasses
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
from at2_rag.reading.features import FeatureSpec
from at2_rag.readout.calibration import Calibration
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
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "where was the author of Emma born?"
CHUNKS = [
    Chunk("Jane Austen wrote Emma.", "Emma"),
    Chunk("The river flows through the old town."),
    Chunk("Steventon is where Jane Austen was born. It is small.", "Steventon"),
    Chunk("Boats pass below it.", "The bridge"),
    Chunk("A lamp stood in the tower."),
]
CHUNK = (0.2, 0.7, 0.3)


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    plain = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    second = np.random.default_rng(5).normal(size=plain.weight.shape[1:]).astype(np.float32)
    return dataclasses.replace(
        plain,
        multi_hop=MultiHop(second, 0.5, CHUNK),
        calibration=Calibration(
            -plain.weight,
            0.25,
            (0.3, 0.9, -0.2, 1.0),
            (0.1, 0.2, 0.2, 0.1, 1.5),
            unread=1.0,  # the tiny tokenizer knows few words
        ),
        prior_weight=0.6,
    )


@pytest.fixture(scope="module")
def pruner(weights: HeadWeights) -> AT2Pruner:
    return tiny_pruner(weights)


def many(times: int) -> list[Chunk]:
    return [Chunk(f"{one.text} {number}", one.title) for number in range(times) for one in CHUNKS]


def by_hand(pruner: AT2Pruner, first: list[float]) -> tuple[list[float], list[float]]:
    """Return the scores and probabilities after a multi-hop, by another pruner's reading.

    Its head weights are the multi-hop weights, so that it scores the other chunks for the longer
    question.
    """
    weights = pruner.head_weights
    assert weights.multi_hop is not None and weights.calibration is not None
    reader = tiny_pruner(
        dataclasses.replace(
            weights,
            weight=weights.multi_hop.weight[None],
            bias=0.0,
            spec=FeatureSpec(weights.spec.quantity, ("together",)),
            calibration=None,
            multi_hop=None,
        )
    )
    best = int(np.argmax(first))
    others = [index for index in range(len(first)) if index != best]
    question = multi_hop_question(QUERY, CHUNKS[best])
    assert question.split() == f"{QUERY}\n{CHUNKS[best].rendered}".split()
    read = reader.score(question, [CHUNKS[n] for n in others])
    raw = [0.5 * first[n] + chunk.score for n, chunk in zip(others, read, strict=True)]
    mass = math.fsum(math.exp(first[n]) for n in others)
    shift = math.log(mass / math.fsum(map(math.exp, raw)))
    logits = [0.25 + weights.bias - value for value in plain(pruner)]
    evidence = math.log(math.fsum(map(math.exp, logits)))
    slope, share, constant = CHUNK
    fixed = constant - share * math.log(mass)
    answerable = weights.calibration.answerable(first, evidence)
    likely = weights.calibration.probabilities(first, answerable).tolist()
    scores, best_likely = list(first), likely[best]
    for index, value in zip(others, raw, strict=True):
        beside = 1 / (1 + math.exp(-((slope + share) * (value + shift) + fixed)))
        mixed = best_likely * max(beside, likely[index]) + (1 - best_likely) * likely[index]
        by_chance = (logit(mixed) - logit(likely[index])) / (0.3 + 0.9)
        rise = max(0.0, by_chance, value + shift - first[index])
        scores[index] += rise
        likely[index] = 1 / (1 + math.exp(-logit(likely[index]) - (0.3 + 0.9) * rise))
    scores[best] = max(scores[best], max(scores[n] for n in others) + 1e-6)
    likely[best] = max(likely)
    return scores, likely


def logit(likely: float) -> float:
    return math.log(likely / (1 - likely))


def plain(pruner: AT2Pruner) -> list[float]:
    return [chunk.score for chunk in pruner.score(QUERY, CHUNKS)]


def scored(result: Any) -> tuple[list[float], list[float]]:
    every = sorted((*result.kept, *result.dropped), key=lambda chunk: int(chunk.index))
    return [chunk.score for chunk in every], [chunk.probability for chunk in every]


def assert_like(result: Any, expected: Any) -> None:
    assert scored(result)[0] == pytest.approx(scored(expected)[0], abs=1e-4)


def test_the_question_is_read_again_beside_the_best_chunk(pruner: AT2Pruner) -> None:
    scores, likely = by_hand(pruner, plain(pruner))
    result = pruner.prune(QUERY, CHUNKS, top_k=2, multi_hop=True)
    assert scored(result)[0] == pytest.approx(scores, abs=1e-4)
    assert scored(result)[1] == pytest.approx(likely, abs=1e-4)
    assert [one.index for one in result.kept] == sorted(range(5), key=lambda n: -scores[n])[:2]
    assert result.kept[0].index == int(np.argmax(plain(pruner)))
    answerable = pruner.prune(QUERY, CHUNKS, top_k=2).answerable
    assert result.answerable == max(answerable or 0, *likely)
    assert all(scores[n] >= one - 1e-9 for n, one in enumerate(plain(pruner)))  # none is lowered
    limited = pruner.prune(QUERY, CHUNKS, max_missed=0.5, multi_hop=True)
    assert math.fsum(likely[one.index] for one in limited.dropped) <= 0.5 * math.fsum(likely)
    terms = np.array([1 / rank for rank in range(1, 6)])
    first = (np.array(plain(pruner)) + 0.6 * (terms - terms.mean())).tolist()
    with_prior = pruner.prune(QUERY, CHUNKS, top_k=5, prior="order", multi_hop=True)
    assert scored(with_prior)[0] == pytest.approx(by_hand(pruner, first)[0], abs=1e-4)


def test_batches_and_sentences_do_the_same(pruner: AT2Pruner) -> None:
    alone = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    other = "who wrote the novel?"
    first, second = pruner.prune_batch(
        [(QUERY, CHUNKS), (other, CHUNKS[:3])], top_k=3, multi_hop=True
    )
    assert_like(first, alone)
    assert_like(second, pruner.prune(other, CHUNKS[:3], top_k=3, multi_hop=True))
    assert_like(pruner.prune(QUERY, CHUNKS, top_k=99, unit="sentence", multi_hop=True), alone)


def test_nothing_is_read_twice(pruner: AT2Pruner, weights: HeadWeights) -> None:
    cache = ChunkCache()
    cached = tiny_pruner(weights, chunk_cache=cache)
    without = pruner.prune(QUERY, CHUNKS, top_k=3, multi_hop=True)
    assert_like(cached.prune(QUERY, CHUNKS, top_k=3, multi_hop=True), without)
    assert (cache.counts.misses, cache.counts.memory_hits) == (5, 4)
    assert_like(cached.prune(QUERY, CHUNKS, top_k=3, multi_hop=True), without)
    assert cache.counts.misses == 5


def test_max_missed_reads_again_if_the_best_chunk_alone_misses_too_much(
    pruner: AT2Pruner, weights: HeadWeights
) -> None:
    once = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=False)
    again = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=True)
    assert scored(pruner.prune(QUERY, CHUNKS, top_k=5)) == scored(once)
    likely = [one.probability or 0 for one in once.kept]
    share = math.fsum(likely[1:]) / math.fsum(likely)
    met = pruner.prune(QUERY, CHUNKS, max_missed=share + 0.01)
    assert scored(met) == scored(once) and len(met.kept) == 1
    less = share - 0.01
    assert scored(pruner.prune(QUERY, CHUNKS, max_missed=less)) == scored(again)
    assert scored(pruner.prune(QUERY, CHUNKS, max_missed=less, multi_hop=False)) == scored(once)
    assert_like(pruner.prune(QUERY, CHUNKS, max_missed=less, unit="sentence"), again)
    [batched, other] = pruner.prune_batch([(QUERY, CHUNKS), (QUERY, CHUNKS[:1])], max_missed=less)
    assert_like(batched, again)
    assert len(other.kept) == 1
    never = tiny_pruner(dataclasses.replace(weights, multi_hop=None))
    assert scored(never.prune(QUERY, CHUNKS, max_missed=less)) == scored(once)


def test_the_ten_that_rank_next_are_read_again(weights: HeadWeights) -> None:
    # Of weights that score each chunk by itself, so that the others change no first score.
    apart = weights.weight.copy()
    apart[0] = 0
    plain = dataclasses.replace(weights, weight=apart, calibration=None, prior_weight=None)
    bound, read = tiny_pruner(plain), 10
    chunks = many(3)
    first = np.array([chunk.score for chunk in bound.score(QUERY, chunks)])
    ranked = np.argsort(-first).tolist()
    after = np.array(scored(bound.prune(QUERY, chunks, top_k=15, multi_hop=True))[0])
    few = sorted(ranked[: 1 + read])
    alone = bound.prune(QUERY, [chunks[n] for n in few], top_k=15, multi_hop=True)
    assert after[few] == pytest.approx(scored(alone)[0], abs=1e-4)
    assert not np.allclose(after[few], first[few], atol=1e-3)
    rest = ranked[1 + read :]
    assert len(rest) == 14 - read
    assert after[rest] == pytest.approx(first[rest], abs=1e-4)


def test_in_a_batch_each_request_is_read_again_by_itself(pruner: AT2Pruner) -> None:
    requests = [(QUERY, CHUNKS), ("who wrote Emma?", CHUNKS), (QUERY, many(4))]
    results = pruner.prune_batch(requests, max_missed=0.0)
    for (query, chunks), result in zip(requests, results, strict=True):
        assert_like(result, pruner.prune(query, chunks, max_missed=0.0))


def test_the_question_is_not_read_again_where_that_changes_nothing(
    pruner: AT2Pruner, weights: HeadWeights
) -> None:
    once = pruner.prune(QUERY, CHUNKS, top_k=5)
    again = pruner.prune(QUERY, CHUNKS, top_k=5, multi_hop=True)
    assert scored(pruner.prune(QUERY, CHUNKS, max_missed=0.0, top_k=1)) == scored(once)
    assert_like(pruner.prune(QUERY, CHUNKS, max_missed=0.0, top_k=1, unit="sentence"), again)
    assert weights.calibration is not None
    unsure = dataclasses.replace(weights.calibration, chunk=(0.3, 0.9, -0.2, -9.0))
    doubter = tiny_pruner(dataclasses.replace(weights, calibration=unsure))
    assert_like(doubter.prune(QUERY, CHUNKS, max_missed=0.0), once)
    one = pruner.prune(QUERY, CHUNKS[:1], top_k=1, multi_hop=True)
    assert scored(one) == scored(pruner.prune(QUERY, CHUNKS[:1], top_k=1))
    assert pruner.prune(QUERY, [], top_k=1, multi_hop=True).kept == ()


def test_few_threads_hold_states_between_two_readings(pruner: AT2Pruner) -> None:
    scorer = pruner._scorer
    reading, most, guard = 0, 0, threading.Lock()
    real = scorer._scores_of

    def both_readings(*arguments: Any) -> Any:
        nonlocal reading, most
        with guard:
            reading += 1
            most = max(most, reading)
        try:
            return real(*arguments)
        finally:
            with guard:
                reading -= 1

    scorer._scores_of = both_readings  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(12) as executor:
        results = [*executor.map(lambda _: pruner.prune(QUERY, CHUNKS, max_missed=0.0), range(36))]
    assert 0 < most <= 1 + (os.cpu_count() or 1)
    assert all(scored(result) == scored(results[0]) for result in results)


def test_a_long_chunk_is_cut_in_the_question() -> None:
    long = Chunk(" ".join(map(str, range(MOST_WORDS * 2))), "A title")
    words = multi_hop_question(QUERY, long).removeprefix(f"{QUERY}\n").split()
    assert words == ["A", "title", *map(str, range(MOST_WORDS - 2))]
    assert multi_hop_question(QUERY, Chunk("")) == f"{QUERY}\n"


def test_a_question_too_long_is_not_read_again(weights: HeadWeights) -> None:
    small = tiny_model(max_position_embeddings=500)
    bound = random_weights(small, tiny_tokenizer(), "together", "apart")
    pruner = tiny_pruner(dataclasses.replace(bound, multi_hop=weights.multi_hop), small)
    long = [Chunk(f"{name} wrote Emma. " * 50) for name in ("Jane", "Ada", "Bela")]
    short = [Chunk("Jane wrote Emma."), Chunk("The sea."), Chunk("The mill.")]
    for chunks, same in ((long, True), (short, False)):
        once = pruner.prune(QUERY, chunks, top_k=3)
        again = pruner.prune(QUERY, chunks, top_k=3, multi_hop=True)
        assert (scored(again) == scored(once)) is same


def test_the_others_keep_their_share() -> None:
    first, second = np.array([1.0, -2.0, 0.5]), np.array([10.0, 12.0, 9.0])
    anew = divided_anew(first, second)
    assert np.exp(anew).sum() == pytest.approx(np.exp(first).sum())
    assert np.diff(anew) == pytest.approx(np.diff(second))
    weights = MultiHop(np.zeros((1, 1), np.float32), 1.0, CHUNK)
    read = ChunkScores(np.array([0.0, 3.0, 2.9, 2.8]))
    others = np.array([0, 2, 3])
    after = after_multi_hop(read, 1, others, np.array([0.0, 0.0, 50.0]), weights)
    assert int(np.argmax(after.scores)) == 1  # the best stays first, whatever the others gain
    assert after.scores[1] > after.scores[3] > 3.4
    assert after.probabilities is None


def test_weights_that_did_not_learn_it_refuse(weights: HeadWeights) -> None:
    pruner = tiny_pruner(dataclasses.replace(weights, multi_hop=None))
    with pytest.raises(InputError, match="multi_hop is True, but the head weights"):
        pruner.prune(QUERY, CHUNKS, top_k=1, multi_hop=True)


def test_the_weights_are_saved_and_checked(weights: HeadWeights, tmp_path: Path) -> None:
    weights.save(tmp_path)
    loaded = HeadWeights.load(tmp_path).multi_hop
    assert loaded is not None and weights.multi_hop is not None
    assert loaded.numbers() == weights.multi_hop.numbers()
    assert np.array_equal(loaded.weight, weights.multi_hop.weight)
    weight = np.zeros((1, 1), np.float32)
    with pytest.raises(HeadWeightsError, match="the multi-hop weights have the shape"):
        dataclasses.replace(weights, multi_hop=MultiHop(weight, 1.0, CHUNK))
    bad: list[tuple[Any, str]] = [
        ((weight + np.nan, 1.0, CHUNK), "NaN or infinity"),
        ((weight, 1.0, (1.0,)), "expected 4 finite"),
        ((weight, -1.0, CHUNK), "number of first_score for a multi-hop chunk is -1.0"),
    ]
    for arguments, message in bad:
        with pytest.raises(HeadWeightsError, match=message):
            MultiHop(*arguments)
