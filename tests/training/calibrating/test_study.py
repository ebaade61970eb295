"""Calibrations judged on data sets that had no part in them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from at2_rag.errors import InputError
from at2_rag.training.calibrating.metrics import auroc
from at2_rag.training.calibrating.probabilities import LabelledCall
from at2_rag.training.calibrating.study import EVERY, judge_left_out_sources, told_by_lengths
from tests.training.calibrating.test_probabilities import SHAPE, drawn


def with_words(calls: list[LabelledCall], longer_by: int = 0) -> list[LabelledCall]:
    """Give chunks random lengths, longer ones to answerable calls; make every other call a twin."""
    rng = np.random.default_rng(0)
    return [
        dataclasses.replace(
            own,
            matters=None if place % 2 else own.matters,
            answerable=own.answerable if place % 2 else None,
            words=rng.integers(20, 90, len(own.gold)) + longer_by * bool(own.answerable),
        )
        for place, own in enumerate(calls)
    ]


def test_each_source_is_judged_by_what_was_fitted_to_the_others() -> None:
    calls = with_words([*drawn(500, 0, "a"), *drawn(500, 1, "b"), *drawn(500, 9, "d")])
    turned = [
        dataclasses.replace(own, matters=None if own.matters is None else ~own.matters)
        for own in with_words(drawn(500, 2, "c"))
    ]
    found = {own.source: own for own in judge_left_out_sources([*calls, *turned], SHAPE)}
    assert set(found) == {"a", "b", "c", "d", EVERY}
    assert found["c"].skill < min(0, found["a"].skill)  # the others say the opposite of it
    assert found["c"].error > 0.2
    of_c = [own for own in turned if own.matters is not None]
    assert found["c"].chunks == sum(len(own.gold) for own in of_c)
    assert found["c"].calls == 250 and found["a"].auroc > 0.55
    assert len(found["a"].reliability) == 15
    shares = [share for _, share in found["c"].reliability]
    assert np.mean(shares) == pytest.approx(found["c"].matter, abs=0.01)
    every = found.pop(EVERY)
    assert every.chunks == sum(own.chunks for own in found.values())
    assert every.calls == sum(own.calls for own in found.values())
    mean = sum(own.matter * own.chunks for own in found.values()) / every.chunks
    assert every.matter == pytest.approx(mean)
    assert len(every.reliability_of_best) == len(every.reliability_of_calls) == 15
    assert 0 < every.error_by_chance < found["a"].error_by_chance < 0.1
    json.loads(json.dumps([own.to_dict() for own in found.values()], allow_nan=False))


def test_sources_without_outcomes_are_not_judged() -> None:
    calls = with_words([*drawn(200, 3, "a"), *drawn(200, 4, "b")])
    silent = [
        dataclasses.replace(own, matters=None, answerable=None)
        for own in with_words(drawn(50, 5, "c"))
    ]
    judged = [own.source for own in judge_left_out_sources([*calls, *silent], SHAPE)]
    assert judged == ["a", "b", EVERY]
    no_words = [dataclasses.replace(own, words=None) for own in calls]
    figures = list(judge_left_out_sources(no_words, SHAPE))
    assert [own.to_dict()["auroc_of_lengths"] for own in figures] == [None, None, None]
    with pytest.raises(InputError, match="all calls are of the source 'a'; pass examples of two"):
        list(judge_left_out_sources(drawn(9, 6, "a"), SHAPE))


def test_lengths_that_tell_are_seen() -> None:
    rng = np.random.default_rng(1)
    one, other = (
        [dataclasses.replace(own, answerable=bool(rng.random() < 0.5)) for own in drawn(800, seed)]
        for seed in (7, 8)
    )
    assert abs(auroc(*told_by_lengths(with_words(one), with_words(other))) - 0.5) < 0.08
    assert auroc(*told_by_lengths(with_words(one, 30), with_words(other, 30))) > 0.8
    assert auroc(np.array([1.0, 0.0]), np.array([True, False])) == 1
