"""Fitting head weights: linear readouts under two kinds of loss. Pure numbers, no model.

*Listwise*: the cross-entropy between the softmax over a sample's scores and a distribution over
its chunks (ListNet's top-one loss; Cao et al., "Learning to Rank: From Pairwise Approach to
Listwise Approach", ICML 2007). Convex in the weights; a ridge penalty on the standardised weights
keeps it strictly so.

*Pearson*: minus the correlation, within a sample, between an answer's likelihood under masks and
the sum of the kept chunks' scores (B. Cohen-Wang et al., "Learning to Attribute with Attention",
arXiv 2504.13752, section 3). It doesn't know the weights' scale and isn't convex: it starts from
the least-squares solution, and its penalty is the ridge relative to the predictions' variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.arrays import Floats
from at2_rag.errors import InputError
from at2_rag.training.fitting.losses import (
    AblationData,
    ListwiseData,
    ListwiseLoss,
    PearsonLoss,
    Standardised,
)

_KEPT_SHARE = 0.7  # of groups of features, at each step of their elimination

Loss: TypeAlias = Callable[[Floats], tuple[float, Floats]]  # returns value and gradient


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """A linear readout: `features @ weight + bias`, for features as they come."""

    weight: Floats  # [F]
    bias: float  # of a listwise fit: makes the mean score over the training chunks zero

    def scores(self, features: npt.NDArray[np.float32]) -> Floats:
        """Return the scores of chunks by their features, [N, F] -> [N]."""
        scores: Floats = features @ self.weight + self.bias
        return scores


def fit_listwise(data: ListwiseData, *, ridge: float) -> LinearFit:
    """Return the weights that minimise the listwise loss plus a ridge penalty.

    That is `loss + ridge / 2 * |v|^2`, v the weights of the standardised features.
    """
    standard = Standardised(data.features)
    loss = ListwiseLoss(data, standard.matrix)

    def penalty(vector: Floats) -> tuple[float, Floats]:
        return ridge / 2 * float(vector @ vector), ridge * vector

    vector = _minimise(loss, penalty, np.zeros(len(standard.mean)))
    return _folded(standard, vector, 0.0)


def fit_few(
    fit: Callable[[npt.NDArray[np.int64]], LinearFit],
    features: npt.NDArray[np.float32],
    group_of: npt.NDArray[np.int64],
    most: int,
) -> LinearFit:
    """Return a readout in which at most `most` groups of features have weights.

    Recursive feature elimination (Guyon et al., "Gene Selection for Cancer Classification using
    Support Vector Machines", 2002), of groups: as long as there are too many, those whose
    standardised weights are least are left out.

    Args:
        fit: Fits a readout to some columns.
        features: [N, F].
        group_of: [F], the group of each feature.
        most: Groups that may have weights.
    """
    spread = features.std(axis=0, dtype=np.float64)
    left = np.unique(group_of)
    while True:
        columns = np.flatnonzero(np.isin(group_of, left))
        part = fit(columns)
        if len(left) <= most:
            weight = np.zeros(len(group_of))
            weight[columns] = part.weight
            return LinearFit(weight, part.bias)
        strength = np.zeros(group_of.max() + 1)
        np.add.at(strength, group_of[columns], (part.weight * spread[columns]) ** 2)
        keep = max(most, int(_KEPT_SHARE * len(left)))
        left = np.sort(left[np.argsort(-strength[left], kind="stable")[:keep]])


def fit_pearson(data: AblationData, *, ridge: float) -> LinearFit:
    """Return the weights whose summed scores correlate best with the ablations' effects.

    Minimises `loss + ridge / 2 * |v|^2 / V`, v the weights of the standardised features (bias
    included) and V the mean variance of the predictions; the weights are scaled to V = 1.
    """
    standard = Standardised(data.features)
    loss = PearsonLoss(data, standard.matrix)

    def penalty(vector: Floats) -> tuple[float, Floats]:
        square, (variance, slope) = float(vector @ vector), loss.variance(vector)
        slope = 2 * vector - square / variance * slope
        return ridge / 2 * square / variance, ridge / 2 / variance * slope

    start = loss.least_squares(ridge)
    if not loss.variance(start)[0] > 0:
        raise InputError(
            "no weights give predictions that vary over masks: all masks of a sample are alike, or "
            "effects don't follow the features; pass samples with at least two different masks"
        )
    vector = _minimise(loss, penalty, start)
    scaled = vector / np.sqrt(loss.variance(vector)[0])
    return _folded(standard, scaled[:-1], scaled[-1])


def _folded(standard: Standardised, vector: Floats, bias: float) -> LinearFit:
    """Return the readout for features as they come."""
    weight = vector / standard.scale
    return LinearFit(weight, float(bias - standard.mean @ weight))


def _minimise(loss: Loss, penalty: Loss, start: Floats) -> Floats:
    """Return the vector that minimises the sum of both."""

    def objective(vector: Floats) -> tuple[float, Floats]:
        (value, slope), (added, added_slope) = loss(vector), penalty(vector)
        return value + added, slope + added_slope

    options = {"maxiter": 500, "ftol": 1e-7}
    vector: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return vector
