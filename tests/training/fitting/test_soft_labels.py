"""Soft labels against the temperature that another solver finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy

from at2_rag.arrays import Floats
from at2_rag.training.fitting.soft_labels import SOFTNESS, soft_labels

COUNTS = np.random.default_rng(0).integers(2, 31, 40)
SOURCES = np.array(["a", "b"] * 20)


def drawn() -> Floats:
    return np.asarray(np.random.default_rng(1).normal(size=COUNTS.sum()))


def lists(values: Floats) -> list[Floats]:
    return np.split(values, np.cumsum(COUNTS)[:-1])


def softness(shares: list[Floats]) -> float:
    return float(np.mean([entropy(one) / np.log(len(one)) for one in shares]))


def test_shares_are_the_softmax_at_the_temperature_of_the_stated_softness() -> None:
    scores = drawn()
    shares = lists(soft_labels(scores, COUNTS, SOURCES))
    for source in "ab":
        chosen = np.flatnonzero(SOURCES == source)
        of_source = [lists(scores)[index] for index in chosen]
        temperature = brentq(
            lambda t, of=of_source: softness([softmax(one / t) for one in of]) - SOFTNESS, 0.01, 9
        )
        for index in chosen:
            expected = softmax(lists(scores)[index] / temperature)
            assert shares[index] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(0.01, 5), (1e300, 0), (1e-300, 0), (3, -1e3)])
def test_neither_scale_nor_zero_matters(scale: float, shift: float) -> None:
    plain = soft_labels(drawn(), COUNTS, SOURCES)
    of_first = np.repeat(SOURCES == "a", COUNTS)
    moved = np.where(of_first, drawn() * scale + shift, drawn())
    assert soft_labels(moved, COUNTS, SOURCES) == pytest.approx(plain, abs=1e-6)


def test_chunks_without_a_score_and_lists_that_say_nothing_have_no_share() -> None:
    scores = np.array([1.0, np.nan, 3.0, 2.0, 2.0, np.nan, 4.0, np.nan, 0.0, 1.0])
    counts, sources = np.array([3, 2, 2, 1, 2]), np.array(["a"] * 5)
    shares = soft_labels(scores, counts, sources)
    assert np.array_equal(
        np.isnan(shares), np.isnan(scores) | [False] * 3 + [True] * 4 + [False] * 3
    )
    assert shares[[0, 2]].sum() == pytest.approx(1) and shares[8:].sum() == pytest.approx(1)
    assert shares[2] > shares[9] > 0.5, "surer where scores are farther apart"
    assert np.isnan(soft_labels(np.full(4, np.nan), np.array([4]), np.array(["a"]))).all()


def test_a_teacher_that_only_says_yes_or_no_shares_out_among_its_yeses() -> None:
    scores = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    shares = soft_labels(scores, np.array([3, 3]), np.array(["a", "a"]))
    assert shares == pytest.approx([0, 0.5, 0.5, 0, 0, 1], abs=1e-3)
