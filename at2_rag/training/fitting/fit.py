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

_MOST_ITERATIONS = 500
_TOLERANCE = 1e-7  # relative change of the loss at which fitting ends

Loss: TypeAlias = Callable[[Floats], tuple[float, Floats]]
"""Returns value and gradient."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """A linear readout: `features @ weight + bias`.

    Attributes:
        weight: [F] float64, for features as they come: standardisation is folded in.
        bias: Of a listwise fit, makes the mean score over the training chunks zero; fitted
            where ablations show what keeping any chunk at all does.
        loss: The weighted mean loss on the training samples, without the penalty.
    """

    weight: Floats
    bias: float
    loss: float


def fit_listwise(data: ListwiseData, *, ridge: float) -> LinearFit:
    """Return the weights that minimise the listwise loss plus a ridge penalty.

    Args:
        data: The samples.
        ridge: Penalty r in `loss + r / 2 * |v|^2`, v the weights of the standardised features.

    Raises:
        InputError: If a sample has no label above 0, or a number isn't finite.
    """
    standard = Standardised(data.features)
    loss = ListwiseLoss(data, standard.matrix)

    def penalty(vector: Floats) -> tuple[float, Floats]:
        return ridge / 2 * float(vector @ vector), ridge * vector

    vector = _minimise(loss, penalty, np.zeros(len(standard.mean)))
    return _folded(standard, vector, 0.0, loss(vector)[0])


def fit_pearson(data: AblationData, *, ridge: float) -> LinearFit:
    """Return the weights whose summed scores correlate best with the ablations' effects.

    Samples whose effects don't vary are passed over. The scale of the scores is such that a
    prediction's variance over masks is 1 in the weighted mean over samples.

    Args:
        data: The samples.
        ridge: Penalty r in `loss + r / 2 * |v|^2 / V`, v the weights of the standardised
            features (bias included) and V the weighted mean variance of the predictions.

    Raises:
        InputError: If no sample's effects vary, no scores could tell its masks apart, or a number
            isn't finite.
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
    return _folded(standard, scaled[:-1], scaled[-1], loss(vector)[0])


def _folded(standard: Standardised, vector: Floats, bias: float, loss: float) -> LinearFit:
    """Return the readout for features as they come."""
    weight = vector / standard.scale
    return LinearFit(weight=weight, bias=float(bias - standard.mean @ weight), loss=loss)


def _minimise(loss: Loss, penalty: Loss, start: Floats) -> Floats:
    """Return the vector that minimises the sum of both."""

    def objective(vector: Floats) -> tuple[float, Floats]:
        (value, slope), (added, added_slope) = loss(vector), penalty(vector)
        return value + added, slope + added_slope

    options = {"maxiter": _MOST_ITERATIONS, "ftol": _TOLERANCE}
    vector: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return vector
