"""The fits that every part of a calibration is made of. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import LinearFit, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.samples import source_weights

PENALTY = 1e-4
"""Ridge penalty that keeps slopes finite where the terms separate the outcomes perfectly."""

EVERY = "every source"
"""Name of all data sets taken together as one."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class _InFold(Protocol):
    @property
    def fold(self) -> int: ...


Sample = TypeVar("Sample", bound=_InFold)
Fitted = TypeVar("Fitted")


class Row(NamedTuple):
    """What a fit needs of one sample.

    Attributes:
        source: The data set it is from. Every source counts the same in a fit, and so does every
            sample of a source.
        terms: [S, T], float32 for rankings.
        labels: [S] bool.
    """

    source: str
    terms: npt.NDArray[Any]
    labels: Bools


def out_of_fold(samples: Sequence[Sample], fit: Callable[[list[Sample]], Fitted]) -> list[Fitted]:
    """Return for each sample what `fit` returns for the samples of all other folds."""
    fits = {
        fold: fit([sample for sample in samples if sample.fold != fold])
        for fold in sorted({sample.fold for sample in samples})
    }
    return [fits[sample.fold] for sample in samples]


def fit_ranking(rows: Sequence[Row], *, name: str, ridge: float) -> LinearFit:
    """Return the readout under which gold rows rank highest, by the listwise loss.

    Args:
        rows: The samples; those without both gold and other rows are left out.
        name: What is fitted, for the error.
        ridge: Penalty, see `fit_listwise`.

    Raises:
        InputError: If no sample is left.
    """
    rows = [row for row in rows if 0 < row.labels.mean() < 1]
    if not rows:
        raise InputError(
            f"{name} can't be fitted: no question has both gold and others to rank; pass more "
            "examples, or calibrate without them"
        )
    data = ListwiseData(
        np.concatenate([row.terms for row in rows]),
        np.concatenate([row.labels for row in rows]),
        np.array([len(row.labels) for row in rows]),
        source_weights([row.source for row in rows]),
    )
    return fit_listwise(data, ridge=ridge)


def fit_link(
    rows: Sequence[Row], *, name: str, ridge: float = PENALTY, rising: int = 0
) -> tuple[float, ...]:
    """Return slopes and constant of the logistic function that makes the labels likeliest.

    Args:
        rows: The samples; every row of a sample counts the same.
        name: What a label is, for the error.
        ridge: Penalty r in `loss + r / 2 * |v|^2`, v the slopes of the standardised terms.
        rising: How many slopes, from the first, may not be below 0.

    Raises:
        InputError: If all labels are the same, or there are none.
    """
    labels = np.concatenate([np.zeros(0, dtype=bool), *(row.labels for row in rows)])
    if labels.all() or not labels.any():
        raise InputError(
            f"calibration needs both kinds of each outcome, but {int(labels.sum())} of "
            f"{len(labels)} times a {name} is true; pass more examples"
        )
    sizes = [len(row.labels) for row in rows]
    weights = np.repeat(source_weights([row.source for row in rows]) / sizes, sizes)
    terms = np.concatenate([row.terms for row in rows])  # [N, T]
    mean, scale = terms.mean(axis=0, dtype=float), terms.std(axis=0, dtype=float) + 1e-9
    values = np.hstack([(terms - mean) / scale, np.ones((len(terms), 1))])  # [N, T + 1]
    signs = np.where(labels, 1.0, -1.0)

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
