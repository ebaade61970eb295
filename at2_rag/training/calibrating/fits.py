"""The fits that every part of a calibration is made of. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import LinearFit, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import source_weights

PENALTY = 1e-4
"""Ridge penalty that keeps slopes finite where the terms separate the outcomes perfectly."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class _InFold(Protocol):
    @property
    def fold(self) -> int: ...


Sample = TypeVar("Sample", bound=_InFold)
Fitted = TypeVar("Fitted")


def out_of_fold(samples: Sequence[Sample], fit: Callable[[list[Sample]], Fitted]) -> list[Fitted]:
    """Return for each sample what `fit` returns for the samples of all other folds."""
    fits = {
        fold: fit([sample for sample in samples if sample.fold != fold])
        for fold in sorted({sample.fold for sample in samples})
    }
    return [fits[sample.fold] for sample in samples]


def fit_ranking(
    features: Sequence[npt.NDArray[np.float32]],
    gold: Sequence[Bools],
    weights: Floats,
    *,
    ridge: float,
) -> LinearFit:
    """Return the readout under which gold rows rank highest, by the listwise loss.

    Args:
        features: For each sample [S, F].
        gold: For each sample [S], at least one row gold.
        weights: [I], each sample's weight in the loss.
        ridge: Penalty, see `fit_listwise`.
    """
    counts = np.array([len(labels) for labels in gold])
    data = ListwiseData(np.concatenate(features), np.concatenate(gold), counts, weights)
    return fit_listwise(data, ridge=ridge)


def fit_link(
    rows: Sequence[tuple[str, npt.NDArray[np.floating], Bools]],
    *,
    outcome: str,
    ridge: float = PENALTY,
    rising: int = 0,
) -> tuple[float, ...]:
    """Return slopes and constant of the logistic function that makes the outcomes likeliest.

    Every source counts the same, so does every sample of a source and every row of a sample.

    Args:
        rows: For each sample its source, terms [S, T] and outcomes [S].
        outcome: What an outcome is called in the error.
        ridge: As in `logistic_fit`, like `rising`.
        rising: See there.

    Raises:
        InputError: If all outcomes are the same, or there are none.
    """
    outcomes = np.concatenate([np.zeros(0, dtype=bool), *(row[2] for row in rows)])
    if outcomes.all() or not outcomes.any():
        raise InputError(
            f"calibration needs both kinds of each outcome, but {int(outcomes.sum())} of "
            f"{len(outcomes)} times a {outcome} is true; pass more examples"
        )
    sizes = [len(row[2]) for row in rows]
    weights = np.repeat(source_weights([row[0] for row in rows]) / sizes, sizes)
    terms = np.concatenate([row[1] for row in rows])
    return logistic_fit(terms, outcomes, weights, ridge, rising=rising)


def logistic_fit(
    terms: npt.NDArray[np.floating],
    outcomes: Bools,
    weights: Floats,
    ridge: float,
    *,
    rising: int = 0,
) -> tuple[float, ...]:
    """Return slopes and constant of the logistic function that makes the outcomes likeliest.

    Args:
        terms: [N, T].
        outcomes: [N].
        weights: [N], adding up to 1.
        ridge: Penalty r in `loss + r / 2 * |v|^2`, v the slopes of the standardised terms.
        rising: How many slopes, from the first, may not be below 0.
    """
    mean, scale = terms.mean(axis=0, dtype=float), terms.std(axis=0, dtype=float) + 1e-9
    values = np.hstack([(terms - mean) / scale, np.ones((len(terms), 1))])  # [N, T + 1]
    signs = np.where(outcomes, 1.0, -1.0)

    def loss(vector: Floats) -> tuple[float, Floats]:
        margins = signs * (values @ vector)
        penalty = ridge * vector
        penalty[-1] = 0.0
        slope = values.T @ (-weights * signs * np.exp(-np.logaddexp(0.0, margins)))
        total = float(weights @ np.logaddexp(0.0, -margins)) + float(penalty @ vector) / 2
        return total, slope + penalty

    count = terms.shape[1]
    bounds = [(0.0, None)] * rising + [(None, None)] * (count + 1 - rising)
    result = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    slopes = result.x[:-1] / scale
    return (*map(float, slopes), float(result.x[-1] - slopes @ mean))
