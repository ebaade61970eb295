"""Fitting probabilities, and how good they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from at2_rag.calibration import Calibration
from at2_rag.errors import InputError
from at2_rag.training.calibration_fit import (
    ScoredCall,
    brier_skill,
    calibration_error,
    fit_calibration,
)

TRUE = Calibration(chunk=(0.4, 1.2, 0.5), call=(0.9, 0.6, -0.5))


def drawn(count: int, seed: int, source: str = "a") -> tuple[list[ScoredCall], list[ScoredCall]]:
    """Draw calls whose outcomes have the probabilities of `TRUE`."""
    rng = np.random.default_rng(seed)
    chunks, calls = [], []
    for _ in range(count):
        scores = rng.normal(0, 2, int(rng.integers(2, 12)))
        matters = rng.random(len(scores)) < TRUE.probabilities(scores)
        chunks.append(ScoredCall(source, scores, matters))
        calls.append(ScoredCall(source, scores, rng.random(1) < TRUE.supported(scores)))
    return chunks, calls


def test_the_calibration_that_outcomes_follow_is_found_again() -> None:
    fitted = fit_calibration(*drawn(6000, 0))
    assert fitted.chunk == pytest.approx(TRUE.chunk, abs=0.12)
    assert fitted.call == pytest.approx(TRUE.call, abs=0.25)
    chunks, _ = drawn(3000, 1)
    p = np.concatenate([fitted.probabilities(own.scores) for own in chunks])
    y = np.concatenate([own.outcomes for own in chunks])
    assert calibration_error(p, y) < 0.02
    assert brier_skill(p, y) > 0.2


def test_every_source_counts_the_same() -> None:
    few, few_calls = drawn(300, 2)
    many, many_calls = drawn(900, 3, "b")
    mirrored = [ScoredCall(own.source, own.scores, ~own.outcomes) for own in many]
    flipped = [ScoredCall(own.source, own.scores, ~own.outcomes) for own in many_calls]
    one = fit_calibration([*few, *mirrored], [*few_calls, *flipped])
    other = fit_calibration([*few, *mirrored * 3], [*few_calls, *flipped * 3])
    assert one.chunk == pytest.approx(other.chunk, abs=1e-3)
    assert one.call == pytest.approx(other.call, abs=1e-3)


def test_a_chunk_that_scores_higher_is_never_less_likely() -> None:
    chunks, calls = drawn(400, 4)
    upside_down = [ScoredCall(own.source, -own.scores, own.outcomes) for own in chunks]
    assert min(fit_calibration(upside_down, calls).chunk[:-1]) >= 0


def test_outcomes_of_one_kind_are_refused() -> None:
    chunks, calls = drawn(5, 5)
    same = [ScoredCall("a", own.scores, np.zeros(1, dtype=bool)) for own in calls]
    with pytest.raises(InputError, match="has 0 of 5 outcomes of a call true"):
        fit_calibration(chunks, same)
    with pytest.raises(InputError, match="has 0 of 0 outcomes of a chunk true"):
        fit_calibration([], calls)


def test_calibration_error_by_hand() -> None:
    p = np.array([0.1, 0.3, 0.6, 0.8])
    y = np.array([False, True, True, True])
    assert calibration_error(p, y, bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1)) / 2)
    assert calibration_error(p, y, bins=1) == pytest.approx(abs(0.45 - 0.75))
    assert calibration_error(p, y, bins=9) == pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4)


def test_brier_skill_is_that_of_another_implementation() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200)
    y = rng.random(200) < p
    base = np.full(200, y.mean())
    expected = 1 - brier_score_loss(y, p) / brier_score_loss(y, base)
    assert brier_skill(p, y) == pytest.approx(expected)
    assert brier_skill(y.astype(float), y) == 1
    assert brier_skill(base, y) == pytest.approx(0)
    assert math.isnan(brier_skill(p, np.ones(200, dtype=bool)))
