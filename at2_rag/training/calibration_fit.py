"""Fits a calibration, and tells how good probabilities are. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from at2_rag.calibration import Calibration, call_terms, chunk_terms
from at2_rag.errors import InputError
from at2_rag.training.validation import source_weights

MATTERS = 0.1
"""Drop from which on a chunk matters, in nats a token of the answer."""

BINS = 15
"""Bins of the calibration error, each of as many probabilities."""

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
    slopes = _fit(terms, outcomes, weights)
    if min(slopes[:-1]) < 0:  # what is left of the other term is above 0, or means nothing
        use = int(np.argmax(slopes[:-1]))
        slope, constant = _fit(terms[:, [use]], outcomes, weights)
        slopes = [0.0, 0.0, constant]
        slopes[use] = max(slope, 0.0)
    of_calls, call_weights = _flat(calls, "call")
    fitted = _fit(np.stack([call_terms(own.scores) for own in calls]), of_calls, call_weights)
    return Calibration(chunk=tuple(slopes), call=tuple(fitted))


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
    weights: Floats = np.repeat(of_call / sizes, sizes) * len(outcomes)
    return outcomes, weights


def _fit(terms: Floats, outcomes: Bools, weights: Floats) -> list[float]:
    """Return slopes and constant; a penalty too small to matter keeps them finite."""
    scale = terms.std(axis=0) + 1e-9
    model = LogisticRegression(C=100.0, max_iter=1_000)
    model.fit(terms / scale, outcomes, sample_weight=weights)
    return [*(model.coef_[0] / scale).tolist(), float(model.intercept_[0])]


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
