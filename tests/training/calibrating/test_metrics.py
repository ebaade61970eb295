"""How good probabilities are, against hand-worked numbers and other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from at2_rag.training.calibrating.metrics import (
    auroc,
    brier_skill,
    calibration_error,
    error_by_chance,
    reliability,
)


def test_calibration_error_by_hand() -> None:
    p, y = np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, True, True, True])
    assert calibration_error(p, y) == pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4)
    # Thirty probabilities: two a bin, of which one outcome is true in the first five bins.
    p, y = np.linspace(0.01, 0.3, 30), np.isin(np.arange(30), [0, 3, 4, 6, 9])
    bins = [(0.015 + 0.02 * number, 0.5 * (number < 5)) for number in range(15)]
    assert np.array(reliability(p, y)) == pytest.approx(np.array(bins))
    error = sum(abs(mean - share) for mean, share in bins) / 15
    assert calibration_error(p, y) == pytest.approx(error)
    assert calibration_error(p[::-1], y[::-1]) == calibration_error(p, y)
    half = np.arange(30) < 15
    for outcomes in (half, half[::-1]):  # whatever the order of equal probabilities
        assert calibration_error(np.full(30, 0.5), outcomes) == 0


def test_brier_skill_and_auroc_are_those_of_another_implementation() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(300).round(1)  # ties
    y = rng.random(300) < p
    base = brier_score_loss(y, np.full(300, y.mean()))
    assert brier_skill(p, y) == pytest.approx(1 - brier_score_loss(y, p) / base)
    assert auroc(p, y) == pytest.approx(roc_auc_score(y, p))
    assert brier_skill(y.astype(float), y) == auroc(y.astype(float), y) == 1
    for same in (np.zeros(300, dtype=bool), np.ones(300, dtype=bool)):
        assert math.isnan(auroc(p, same)) and math.isnan(brier_skill(p, same))


def test_the_error_by_chance_is_that_of_true_probabilities() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(300)
    errors = [calibration_error(p, rng.random(300) < p) for _ in range(200)]
    assert error_by_chance(p) == pytest.approx(np.mean(errors), rel=0.05)
    assert error_by_chance(rng.random(6_000)) < error_by_chance(p) / 2
    assert error_by_chance(np.ones(50)) == 0
    assert math.isnan(error_by_chance(np.zeros(0)))
