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
    p = np.array([0.1, 0.3, 0.6, 0.8])
    y = np.array([False, True, True, True])
    assert calibration_error(p, y, bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1)) / 2)
    assert calibration_error(p, y, bins=1) == pytest.approx(abs(0.45 - 0.75))
    assert calibration_error(p, y, bins=9) == pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4)
    assert calibration_error(p[::-1], y[::-1], bins=2) == calibration_error(p, y, bins=2)
    half = np.array([True] * 15 + [False] * 15)
    for outcomes in (half, half[::-1]):  # whatever their order
        assert calibration_error(np.full(30, 0.5), outcomes) == 0


def test_brier_skill_and_auroc_are_those_of_another_implementation() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(300).round(1)  # ties
    y = rng.random(300) < p
    base = np.full(300, y.mean())
    assert brier_skill(p, y) == pytest.approx(
        1 - brier_score_loss(y, p) / brier_score_loss(y, base)
    )
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


def test_reliability_holds_each_bins_means() -> None:
    p, y = np.linspace(0, 1, 30), np.arange(30) >= 15
    bins = reliability(p, y)
    assert len(bins) == 15
    assert bins[0] == pytest.approx(((p[0] + p[1]) / 2, 0.0))
    assert bins[7] == pytest.approx(((p[14] + p[15]) / 2, 0.5))
