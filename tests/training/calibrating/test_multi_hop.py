"""Fitting multi-hop weights to calls whose second gold chunk only the second reading shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from at2_rag.errors import InputError
from at2_rag.readout.calibration import chunk_terms, logistic
from at2_rag.readout.multi_hop import divided_anew
from at2_rag.training.calibrating.metrics import brier_skill, calibration_error
from at2_rag.training.calibrating.multi_hop import FollowedCall, fit_multi_hop, judge_multi_hop

SHAPE = (2, 2)


def drawn(count: int, seed: int, source: str = "a") -> list[FollowedCall]:
    """Draw calls of eight chunks: the best is gold, and one other, most often by its feature."""
    rng = np.random.default_rng(seed)
    calls = []
    for number in range(count):
        scores = rng.normal(0, 1, 8)
        best = int(np.argmax(scores))
        others = [place for place in range(8) if place != best]
        features = rng.normal(0, 1, (7, 4)).astype(np.float32)
        chosen = int(np.argmax(3 * features[:, 0] + 0.5 * scores[others] + rng.gumbel(size=7)))
        gold = np.zeros(8, dtype=bool)
        gold[[best, others[chosen]]] = True
        calls.append(FollowedCall(source, number % 3, scores, gold, 0.0, features))
    return calls


def test_it_finds_what_shows_the_second_gold_chunk() -> None:
    own = fit_multi_hop(drawn(600, 0), SHAPE)
    weight = own.weight.ravel()
    assert weight.shape == (4,) and own.weight.shape == SHAPE
    assert weight[0] > 5 * np.abs(weight[1:]).max()
    assert 0 < own.score < weight[0]


def test_probabilities_of_the_others_come_true() -> None:
    own, calls = fit_multi_hop(drawn(600, 1), SHAPE), drawn(600, 2)
    likely, outcomes = [], []
    for call in calls:
        second = divided_anew(call.first, own.scores(call.first, call.features))
        likely.append(logistic(chunk_terms(second, call.evidence), own.chunk))
        outcomes.append(call.gold[call.others])
    p, y = np.concatenate(likely), np.concatenate(outcomes)
    assert calibration_error(p, y) < 0.03
    assert brier_skill(p, y) > 0.4


def test_calls_are_judged_by_weights_fitted_without_their_fold() -> None:
    calls = [*drawn(300, 3, "a"), *drawn(150, 4, "b")]
    found = {own.source: own for own in judge_multi_hop(calls)}
    assert set(found) == {"a", "b", "every source"}
    for name, own in found.items():
        judged = [call for call in calls if name in (call.source, "every source")]
        first = [
            set(np.argsort(-call.scores)[:3]) >= set(np.flatnonzero(call.gold)) for call in judged
        ]
        assert own.calls == len(judged)
        assert own.without == pytest.approx(np.mean(first))
        assert own.with_it - own.without > 0.2 and own.low > 0
        assert own.low < own.with_it - own.without < own.high
    turned = [
        dataclasses.replace(call, features=-call.features) if call.fold == 0 else call
        for call in calls
    ]
    worse = {own.source: own for own in judge_multi_hop(turned)}
    assert worse["every source"].with_it < found["every source"].with_it - 0.1


def test_calls_without_a_second_gold_chunk_do_not_teach() -> None:
    calls = drawn(30, 5)
    alone = [dataclasses.replace(call, gold=np.arange(8) == call.best) for call in calls]
    assert judge_multi_hop([*calls, *alone])[0].calls == 30
    with pytest.raises(InputError, match="multi-hop weights can't be fitted"):
        fit_multi_hop(alone, SHAPE)
