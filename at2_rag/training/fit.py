"""Fitting head weights: a linear readout under a listwise loss. Pure numbers, no model.

The loss of a sample is the cross-entropy between the softmax over its chunks' scores and the
uniform distribution over its gold chunks (ListNet's top-one loss; Cao et al., "Learning to Rank:
From Pairwise Approach to Listwise Approach", ICML 2007). It is convex in the weights; a ridge
penalty on the standardised weights keeps it strictly so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

Floats: TypeAlias = npt.NDArray[np.float32]

_MOST_ITERATIONS = 500
_TOLERANCE = 1e-7  # relative change of the loss at which fitting ends


@dataclass(frozen=True, slots=True, eq=False)
class ListwiseData:
    """Samples with features and labels, the sources of a sample one after another.

    Attributes:
        features: [N, F] float32.
        labels: [N] bool; every sample has a gold source and another.
        counts: [I] int64, sources of each sample, summing to N.
        weights: [I] float64, weight of each sample in the loss.
    """

    features: Floats
    labels: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    def take(self, samples: npt.NDArray[np.bool_]) -> ListwiseData:
        """Return the samples where the mask [I] holds."""
        rows = np.repeat(samples, self.counts)
        return ListwiseData(
            self.features[rows], self.labels[rows], self.counts[samples], self.weights[samples]
        )


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """A linear readout: `features @ weight + bias`.

    Attributes:
        weight: [F] float64, for features as they come: standardisation is folded in.
        bias: Makes the mean score over the training sources zero.
        loss: Weighted mean cross-entropy on the training samples, in nats.
    """

    weight: npt.NDArray[np.float64]
    bias: float
    loss: float


def fit_listwise(data: ListwiseData, *, ridge: float) -> LinearFit:
    """Return the weights that minimise the listwise loss plus a ridge penalty.

    Args:
        data: The samples.
        ridge: Penalty r in `loss + r / 2 * |v|^2`, v the weights of the standardised features.
    """
    mean = data.features.mean(axis=0, dtype=np.float64)
    scale = data.features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = np.inf  # a feature that never varies gets no weight
    # torch's products, not NumPy's: they keep to the number of threads that torch is set to.
    matrix = torch.from_numpy(((data.features - mean) / scale).astype(np.float32))
    starts = np.concatenate([[0], np.cumsum(data.counts)[:-1]])
    share = data.weights / data.weights.sum()
    gold = data.labels / np.repeat(np.add.reduceat(data.labels.astype(float), starts), data.counts)
    row_share = np.repeat(share, data.counts)

    def objective(vector: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scores = (matrix @ torch.from_numpy(vector).float()).double().numpy()
        top = np.maximum.reduceat(scores, starts)
        exponents = np.exp(scores - np.repeat(top, data.counts))
        totals = np.add.reduceat(exponents, starts)
        log_totals = np.log(totals) + top
        loss = share @ log_totals - (row_share * gold) @ scores
        excess = row_share * (exponents / np.repeat(totals, data.counts) - gold)
        slope = (torch.from_numpy(excess).float() @ matrix).double().numpy()
        return float(loss + ridge / 2 * vector @ vector), slope + ridge * vector

    found = minimize(
        objective,
        np.zeros(matrix.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_ITERATIONS, "ftol": _TOLERANCE},
    )
    weight = found.x / scale
    loss = float(found.fun - ridge / 2 * found.x @ found.x)
    return LinearFit(weight=weight, bias=float(-mean @ weight), loss=loss)
