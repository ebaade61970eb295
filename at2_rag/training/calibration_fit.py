"""Fits a calibration, and tells how good probabilities are. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.calibration import Calibration, call_terms, chunk_terms
from at2_rag.errors import InputError
from at2_rag.training.validation import source_weights

MATTERS = 0.1
"""Drop from which on a chunk matters, in nats a token of the answer."""

BINS = 15
"""Bins of the calibration error, each of as many probabilities."""

_PENALTY = 1e-4
"""Ridge penalty on the slopes of standardised terms, which keeps those of separable data finite."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCall:
    """The scores of one call, and what is to be predicted from them.

    Attributes:
        source: The data set it is from; each counts the same in a fit.
        scores: [S] float64, at least one.
        outcomes: [S] bool, whether each chunk matters, or [1], whether the call is supported.
    """

    source: str
    scores: Floats
    outcomes: Bools


def fit_calibration(chunks: Sequence[ScoredCall], calls: Sequence[ScoredCall]) -> Calibration:
    """Return the calibration under which the outcomes are likeliest, every source alike.

    Args:
        chunks: Calls with an outcome for each chunk.
        calls: Calls with one outcome each.

    Raises:
        InputError: If all outcomes of one kind are the same, or there are none.
    """
    terms = np.concatenate([chunk_terms(own.scores) for own in chunks] or [np.zeros((0, 2))])
    outcomes, weights = _flat(chunks, "chunk")
    of_chunks = _fit(terms, outcomes, weights, least_slope=0.0)
    call_outcomes, call_weights = _flat(calls, "call")
    call_values = np.stack([call_terms(own.scores) for own in calls])
    of_calls = _fit(call_values, call_outcomes, call_weights, least_slope=None)
    return Calibration(chunk=of_chunks, call=of_calls)


def _flat(calls: Sequence[ScoredCall], what: str) -> tuple[Bools, Floats]:
    """Return all outcomes and their weights; raise where they are all the same."""
    outcomes = np.concatenate([own.outcomes for own in calls] or [np.zeros(0, dtype=bool)])
    if len(set(outcomes.tolist())) < 2:
        raise InputError(
            f"calibration has {int(outcomes.sum())} of {len(outcomes)} outcomes of a {what} true; "
            "pass examples of both kinds"
        )
    of_call = source_weights([own.source for own in calls])
    sizes = np.array([len(own.outcomes) for own in calls])
    weights: Floats = np.repeat(of_call / sizes, sizes)
    return outcomes, weights


def _fit(
    terms: Floats, outcomes: Bools, weights: Floats, *, least_slope: float | None
) -> tuple[float, ...]:
    """Return the slopes and the constant that make outcomes likeliest.

    Args:
        terms: [N, T].
        outcomes: [N].
        weights: [N], adding up to 1.
        least_slope: What no slope may be below; None for nothing.
    """
    mean, scale = terms.mean(axis=0), terms.std(axis=0) + 1e-9
    values = np.hstack([(terms - mean) / scale, np.ones((len(terms), 1))])
    signs = np.where(outcomes, 1.0, -1.0)

    def loss(vector: Floats) -> tuple[float, Floats]:
        margins = signs * (values @ vector)
        slope = -weights * signs * np.exp(-np.logaddexp(0.0, margins))
        penalty = _PENALTY * vector
        penalty[-1] = 0.0
        total = float(weights @ np.logaddexp(0.0, -margins)) + float(penalty @ vector) / 2
        return total, values.T @ slope + penalty

    bounds = [(least_slope, None)] * terms.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(values.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    slopes = found.x[:-1] / scale
    return (*map(float, slopes), float(found.x[-1] - slopes @ mean))


def calibration_error(probabilities: Floats, outcomes: Bools, *, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal mass, in [0, 1].

    The mean over probabilities of how far the mean of their bin is from the share of outcomes that
    are true there (M. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015, with bins of equal mass).
    """
    total = 0.0
    for own in np.array_split(np.argsort(probabilities, kind="stable"), bins):
        if own.size:
            total += own.size * abs(float(probabilities[own].mean() - outcomes[own].mean()))
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
