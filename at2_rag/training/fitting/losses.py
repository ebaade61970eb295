"""Losses of head weights over samples of chunks, with their gradients. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import InputError

_LEAST_EFFECT = 1e-6  # root mean square of effects that aren't just rounding


@dataclass(frozen=True, slots=True, eq=False)
class ListwiseData:
    """Samples with features and labels, the chunks of a sample one after another."""

    features: npt.NDArray[np.float32]  # [N, F]
    labels: npt.NDArray[Any]  # [N], how relevant each chunk is; every sample has some above 0
    counts: npt.NDArray[np.int64]  # [I], chunks of each sample

    def take(self, samples: Bools) -> ListwiseData:
        """Return the samples where the mask [I] holds."""
        rows = np.repeat(samples, self.counts)
        return ListwiseData(self.features[rows], self.labels[rows], self.counts[samples])


@dataclass(frozen=True, slots=True, eq=False)
class AblationData:
    """Samples with features and what ablations did to their answers."""

    features: npt.NDArray[np.float32]  # [N, F], the chunks of a sample one after another
    counts: npt.NDArray[np.int64]  # [I], chunks of each sample
    masks: Sequence[Bools]  # of each sample [M, S], True for kept chunks
    effects: Sequence[Floats]  # of each sample [M], its answer's likelihood on any scale

    def take(self, samples: Bools) -> AblationData:
        """Return the samples where the mask [I] holds."""
        kept = np.flatnonzero(samples).tolist()
        return AblationData(
            self.features[np.repeat(samples, self.counts)],
            self.counts[samples],
            [self.masks[index] for index in kept],
            [self.effects[index] for index in kept],
        )


class Standardised:
    """Features [N, F], standardised."""

    def __init__(self, features: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(features).all():
            raise InputError("the features hold NaN or infinity; collect them anew")
        self.scale = features.std(axis=0, dtype=np.float64)
        self.scale[self.scale < 1e-6] = np.inf  # a feature that never varies gets no weight
        self.mean = features.mean(axis=0, dtype=np.float64)
        # torch's products, unlike NumPy's, keep to the number of threads that torch is set to.
        self.matrix = torch.from_numpy(((features - self.mean) / self.scale).astype(np.float32))


class ListwiseLoss:
    """The listwise loss and its gradient, over standardised features."""

    def __init__(self, data: ListwiseData, matrix: torch.Tensor) -> None:
        self._matrix, self._counts = matrix, data.counts
        self._starts = np.cumsum(data.counts) - data.counts
        labels = data.labels.astype(float)
        if not (np.isfinite(labels) & (labels >= 0)).all():
            raise InputError("labels hold NaN, infinity or values below 0; pass finite ones from 0")
        totals = np.add.reduceat(labels, self._starts)
        if not (totals > 0).all():
            raise InputError(
                f"{np.count_nonzero(totals <= 0)} of {len(totals)} samples have no label above 0; "
                "leave them out"
            )
        self._target = labels / np.repeat(totals, data.counts)

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        """Return loss and gradient at the weights [F] of standardised features."""
        scores = (self._matrix @ torch.from_numpy(vector).float()).double().numpy()
        top = np.maximum.reduceat(scores, self._starts)
        exponents = np.exp(scores - np.repeat(top, self._counts))
        totals = np.add.reduceat(exponents, self._starts)
        loss = (np.log(totals) + top).sum() - self._target @ scores
        shares = exponents / np.repeat(totals, self._counts)
        excess = torch.from_numpy((shares - self._target) / len(totals)).float()
        return float(loss) / len(totals), (excess @ self._matrix).double().numpy()


class PearsonLoss:
    """Minus the mean correlation, and its gradient, over standardised features.

    Its weights are [F + 1]: those of the features, then the bias, which every kept chunk adds to a
    prediction.
    """

    def __init__(self, data: AblationData, matrix: torch.Tensor) -> None:
        ends = np.cumsum(data.counts)
        rows, effects, counts = [], [], []
        for index, (masks, effect) in enumerate(zip(data.masks, data.effects, strict=True)):
            if not np.isfinite(effect).all():
                raise InputError(
                    f"the effects of sample {index} hold NaN or infinity; collect them anew, or "
                    "leave it out"
                )
            centred = effect - effect.mean()
            norm = np.linalg.norm(centred)
            if norm <= _LEAST_EFFECT * len(effect) ** 0.5:
                continue
            kept = torch.from_numpy(masks.astype(np.float32))
            features = matrix[ends[index] - data.counts[index] : ends[index]]
            features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
            rows.append((kept - kept.mean(0)) @ features)  # [M, S] @ [S, F + 1]
            effects.append(centred / norm)
            counts.append(len(effect))
        if not rows:
            raise InputError(
                f"none of {len(data.counts)} samples has effects that vary over its masks; "
                "ablations need at least two different masks that change the answer's likelihood"
            )
        self._rows, self._effects = torch.cat(rows), np.concatenate(effects)
        self._counts = np.array(counts)
        self._starts = np.cumsum(self._counts) - self._counts

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        """Return loss and gradient."""
        predicted = self._predict(vector)
        norms = np.sqrt(np.add.reduceat(predicted**2, self._starts)) + 1e-12
        products = np.add.reduceat(predicted * self._effects, self._starts)
        correlations = products / norms
        slope = np.repeat(1 / (len(norms) * norms), self._counts) * (
            self._effects - np.repeat(correlations / norms, self._counts) * predicted
        )
        return -float(correlations.mean()), -self._back(slope)

    def variance(self, vector: Floats) -> tuple[float, Floats]:
        """Return the mean over samples of the predictions' variance, and its gradient."""
        predicted = self._predict(vector)
        squares = np.add.reduceat(predicted**2, self._starts)
        weights = np.repeat(2 / (len(squares) * self._counts), self._counts)
        return float((squares / self._counts).mean()), self._back(weights * predicted)

    def least_squares(self, ridge: float) -> Floats:
        """Return the ridge regression of the standardised effects."""
        weights = np.repeat(1 / (len(self._counts) * self._counts), self._counts)
        rows = self._rows.double()
        weighted = rows * torch.from_numpy(weights)[:, None]
        gram = (weighted.T @ rows).numpy()
        spread = np.repeat(np.sqrt(self._counts), self._counts)
        target = self._back(weights * spread * self._effects)
        strength = max(ridge, 1e-6) * max(float(np.trace(gram)) / len(gram), 1e-12)
        solution = np.linalg.solve(gram + strength * np.eye(len(gram)), target)
        return solution.astype(np.float64)

    def _predict(self, vector: Floats) -> Floats:
        predicted: Floats = (self._rows @ torch.from_numpy(vector).float()).double().numpy()
        return predicted

    def _back(self, slope: Floats) -> Floats:
        back: Floats = (torch.from_numpy(slope).float() @ self._rows).double().numpy()
        return back
