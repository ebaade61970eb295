"""The fits that a calibration is made of: rankings and logistic functions. No model is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError
from at2_rag.training.fitting.fit import LinearFit, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData

PENALTY = 1e-4  # ridge that keeps slopes finite where the terms separate the labels perfectly
START_SAMPLES = 3.0  # how many samples an earlier fit weighs
EVERY = "every source"  # name of all data sets taken together as one
Fit = TypeVar("Fit")


class Labelled(NamedTuple):
    """One sample of a fit."""

    source: str
    fold: int
    terms: npt.NDArray[Any]  # [S, T]
    labels: Bools  # [S]
    weight: float = 1.0  # beside other samples of the source


def out_of_fold(samples: Sequence[Labelled], fit: Callable[[Sequence[Labelled]], Fit]) -> list[Fit]:
    """Return for each sample what `fit` returns for the samples of all other folds."""
    fits = {
        fold: fit([sample for sample in samples if sample.fold != fold])
        for fold in sorted({sample.fold for sample in samples})
    }
    return [fits[sample.fold] for sample in samples]


def fit_ranking(samples: Sequence[Labelled], *, name: str, ridge: float) -> LinearFit:
    """Return the readout that ranks true labels highest, fitted where there are others, too.

    Every sample counts the same.
    """
    samples = [sample for sample in samples if 0 < sample.labels.mean() < 1]
    if not samples:
        raise InputError(
            f"{name} can't be fitted: no question has both gold and others to rank; pass more "
            "examples, or calibrate without them"
        )
    data = ListwiseData(
        np.concatenate([sample.terms for sample in samples]).astype(np.float32),
        np.concatenate([sample.labels for sample in samples]),
        np.array([len(sample.labels) for sample in samples]),
    )
    return fit_listwise(data, ridge=ridge)


def fit_logistic(
    samples: Sequence[Labelled],
    *,
    name: str,
    ridge: float = PENALTY,
    rising: int = 0,
    start: tuple[float, ...] | None = None,
) -> tuple[float, ...]:
    """Return slopes and constant of the logistic function that makes the labels likeliest.

    With a `start`, slopes and constant fitted to other data, they are drawn to these with the
    weight of `START_SAMPLES` samples instead of being drawn to 0 by the ridge.

    Sources count the same, a source's samples by their weights, and a sample's labels the same. The
    first `rising` slopes are at least 0.
    """
    labels = np.concatenate([np.zeros(0, dtype=bool), *(sample.labels for sample in samples)])
    if start is None and (labels.all() or not labels.any()):
        raise InputError(
            f"calibration needs both kinds of each outcome, but {int(labels.sum())} of "
            f"{len(labels)} times a {name} is true; pass more examples"
        )
    sizes = [len(sample.labels) for sample in samples]
    by_sample = source_weights(
        [sample.source for sample in samples], [sample.weight for sample in samples]
    )
    weights = np.repeat(by_sample / sizes, sizes)
    terms = np.concatenate([sample.terms for sample in samples])  # [N, T]
    mean, scale = terms.mean(axis=0, dtype=float), terms.std(axis=0, dtype=float) + 1e-9
    values = np.hstack([(terms - mean) / scale, np.ones((len(terms), 1))])  # [N, T + 1]
    signs = np.where(labels, 1.0, -1.0)
    count = terms.shape[1]
    centre, stiffness = np.zeros(count + 1), np.append(np.full(count, ridge), 0.0)
    if start is not None:
        slopes = np.array(start[:-1])
        centre = np.append(slopes * scale, start[-1] + slopes @ mean)
        stiffness = np.full(count + 1, START_SAMPLES / len(samples))

    def loss(vector: Floats) -> tuple[float, Floats]:
        margins = signs * (values @ vector)
        penalty = stiffness * (vector - centre)
        slope = values.T @ (-weights * signs * np.exp(-np.logaddexp(0.0, margins)))
        total = float(weights @ np.logaddexp(0.0, -margins))
        return total + float(penalty @ (vector - centre)) / 2, slope + penalty

    bounds = [(0.0, None)] * rising + [(None, None)] * (count + 1 - rising)
    result = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    slopes = result.x[:-1] / scale
    return (*map(float, slopes), float(result.x[-1] - slopes @ mean))


def source_weights(sources: Sequence[str], weights: Sequence[float] | None = None) -> Floats:
    """Return weights of samples, [I], under which every source counts the same.

    `weights` [I] are those of the samples within their source; None for all the same.
    """
    names, inverse = np.unique(sources, return_inverse=True)
    of_samples = np.ones(len(sources)) if weights is None else np.asarray(weights, dtype=float)
    return of_samples / (len(names) * np.bincount(inverse, weights=of_samples)[inverse])
