"""How good probabilities are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

BINS = 15
"""Bins of the calibration error, each of as many probabilities."""

_DRAWS = 200

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
    off = [
        own.size * abs(float(probabilities[own].mean() - shares[own].mean()))
        for own in equal_bins(probabilities, bins)
    ]
    return sum(off) / len(probabilities)


def error_by_chance(probabilities: Floats, *, bins: int = BINS) -> float:
    """Return the mean calibration error that these probabilities have if they are the true ones.

    Over 200 draws of outcomes, with a fixed seed. NaN without any.
    """
    if not len(probabilities):
        return float("nan")
    rng = np.random.default_rng(0)
    draws = rng.random((_DRAWS, len(probabilities))) < probabilities
    errors = [calibration_error(probabilities, own, bins=bins) for own in draws]
    return float(np.mean(errors))


def reliability(probabilities: Floats, outcomes: Bools) -> tuple[tuple[float, float], ...]:
    """Return for each bin of equal mass the mean probability and the share of true outcomes."""
    return tuple(
        (float(probabilities[own].mean()), float(outcomes[own].mean()))
        for own in equal_bins(probabilities)
    )


def equal_bins(probabilities: Floats, bins: int = BINS) -> list[npt.NDArray[np.intp]]:
    """Return the places of the probabilities of bins of equal mass, lowest first, none empty."""
    split = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    return [own for own in split if own.size]


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
    true, false = probabilities[outcomes], probabilities[~outcomes]
    if not true.size or not false.size:
        return float("nan")
    return float(mannwhitneyu(true, false).statistic) / (true.size * false.size)
