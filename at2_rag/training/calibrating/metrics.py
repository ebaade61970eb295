"""How good probabilities are.

Calibration error and reliability share bins of equal mass, which scikit-learn doesn't have.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from at2_rag.arrays import Bools, Floats

BINS = 15  # with as many probabilities in each
_DRAWS = 200


def calibration_error(probabilities: Floats, outcomes: Bools) -> float:
    """Return the expected calibration error over bins of equal mass, in [0, 1].

    The mean over all probabilities of the distance between the mean probability of their bin and
    the share of true outcomes there (M. Naeini et al., "Obtaining Well Calibrated Probabilities
    Using Bayesian Binning", AAAI 2015). Outcomes of equal probabilities are averaged first, so that
    their order doesn't change the error.
    """
    _, inverse = np.unique(probabilities, return_inverse=True)
    shares = (np.bincount(inverse, weights=outcomes) / np.bincount(inverse))[inverse]
    distances = [
        rows.size * abs(float(probabilities[rows].mean() - shares[rows].mean()))
        for rows in _equal_bins(probabilities)
    ]
    return sum(distances) / len(probabilities)


def error_by_chance(probabilities: Floats) -> float:
    """Return the mean calibration error that these probabilities would have if they were true.

    Never zero: in a small bin the share of true outcomes is off by chance. NaN without any.
    """
    if not len(probabilities):
        return float("nan")
    rng = np.random.default_rng(0)
    draws = rng.random((_DRAWS, len(probabilities))) < probabilities
    return float(np.mean([calibration_error(probabilities, draw) for draw in draws]))


def reliability(probabilities: Floats, outcomes: Bools) -> tuple[tuple[float, float], ...]:
    """Return for each bin of equal mass the mean probability and the share of true outcomes."""
    return tuple(
        (float(probabilities[rows].mean()), float(outcomes[rows].mean()))
        for rows in _equal_bins(probabilities)
    )


def _equal_bins(probabilities: Floats) -> list[npt.NDArray[np.intp]]:
    """Return the indices of each bin's probabilities, lowest bin first, none empty."""
    split = np.array_split(np.argsort(probabilities, kind="stable"), BINS)
    return [rows for rows in split if rows.size]


def brier_skill(probabilities: Floats, outcomes: Bools) -> float:
    """Return 1 less the mean squared error as a share of that of the base rate, at most 1.

    NaN where all outcomes are the same.
    """
    base = float(outcomes.mean())
    variance = base * (1 - base)
    if variance == 0:
        return float("nan")
    return 1 - float(np.mean((probabilities - outcomes) ** 2)) / variance


def auroc(scores: Floats, outcomes: Bools) -> float:
    """Return how often a true outcome has the greater score, ties counting half, in [0, 1].

    The area under the ROC curve. NaN where all outcomes are the same.
    """
    true, false = scores[outcomes], scores[~outcomes]
    if not true.size or not false.size:
        return float("nan")
    return float(mannwhitneyu(true, false).statistic) / (true.size * false.size)
