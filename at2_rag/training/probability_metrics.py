"""How good probabilities are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

BINS = 15
"""Bins of the calibration error, each of as many probabilities."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def calibration_error(probabilities: Floats, outcomes: Bools, *, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal mass, in [0, 1].

    The mean over probabilities of how far the mean of their bin is from the share of outcomes that
    are true there (M. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015, with bins of equal mass). Of equal probabilities each has the mean of their
    outcomes. Even perfect ones have an error: with few of them a bin's share is off by chance.
    """
    _, place = np.unique(probabilities, return_inverse=True)
    shares = (np.bincount(place, weights=outcomes) / np.bincount(place))[place]
    total = 0.0
    for own in np.array_split(np.argsort(probabilities, kind="stable"), bins):
        if own.size:
            total += own.size * abs(float(probabilities[own].mean() - shares[own].mean()))
    return total / len(probabilities)


def brier_skill(probabilities: Floats, outcomes: Bools) -> float:
    """Return by how much of it the squared error is below that of the base rate, at most 1.

    G. Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950. NaN where all
    outcomes are the same.
    """
    base = float(outcomes.mean())
    variance = base * (1 - base)
    if variance == 0:
        return float("nan")
    return 1 - float(np.mean((probabilities - outcomes) ** 2)) / variance


def auroc(probabilities: Floats, outcomes: Bools) -> float:
    """Return how often a true outcome has the greater probability, ties counting half, in [0, 1].

    J. Hanley and B. McNeil, "The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve", 1982. NaN where all outcomes are the same.
    """
    true = int(outcomes.sum())
    false = len(outcomes) - true
    if not true or not false:
        return float("nan")
    ranks = rankdata(probabilities)[outcomes].sum()
    return float(ranks - true * (true + 1) / 2) / (true * false)
