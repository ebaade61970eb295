"""Bootstrap intervals over clusters of items.

The percentile bootstrap of B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 13, draws whole clusters with replacement (A. C. Davison and D. V. Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8). Systems are compared within the same draw, so
intervals of differences are paired. Sources are strata: each is drawn from by itself, and the macro
figure of a draw is the mean of its sources' means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST_CLUSTERS = 10
"""Clusters of items from which anything is concluded."""

_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval, over `n` items; no interval where there is one cluster.

    Raises:
        ValueError: If a number isn't finite.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    clusters: int

    def __post_init__(self) -> None:
        for name in ("mean", "low", "high"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"the {name} of an estimate over {self.n} items is {value}; it has to be finite"
                )

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that a conclusion may rest on; None from fewer than ten clusters."""
        if self.low is None or self.high is None or self.clusters < FEWEST_CLUSTERS:
            return None
        return self.low, self.high

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def negated(self) -> Estimate:
        """The estimate of the figure with its sign changed."""
        low, high = (None if end is None else 0.0 - end for end in (self.high, self.low))
        return Estimate(0.0 - self.mean, low, high, self.n, self.clusters)


@dataclass(frozen=True, slots=True)
class MeanDraws:
    """Means of columns over one stratum, [K], with their bootstrap draws, [B, K].

    There are no draws where there are fewer than two clusters.
    """

    means: npt.NDArray[np.float64]
    draws: npt.NDArray[np.float64] | None
    n: int
    clusters: int

    def estimate(self, column: int, *, minus: int | None = None) -> Estimate:
        """Return the estimate of a column, or of its difference to the column `minus`."""
        mean = float(self.means[column] - (0 if minus is None else self.means[minus]))
        if self.draws is None:
            return Estimate(mean, None, None, self.n, self.clusters)
        draws = self.draws[:, column] - (0 if minus is None else self.draws[:, minus])
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(mean, float(low), float(high), self.n, self.clusters)


def resample_means(
    values: npt.NDArray[np.float64],
    clusters: Sequence[int],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> MeanDraws:
    """Bootstrap the means of columns, [N, K], over whole clusters; `clusters` has each item's, [N].

    Raises:
        ValueError: If there are no items, or a value isn't finite.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a bootstrap needs at least one item, and finite values")
    _, indices, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    number = len(sizes)
    if number < 2:
        return MeanDraws(values.mean(axis=0), None, len(values), number)
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, indices, values)
    draws = np.empty((resamples, values.shape[1]))
    block = max(1, _BLOCK // number)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(
            number, np.full(number, 1 / number), size=min(block, resamples - start)
        ).astype(np.float64)
        draws[start : start + len(drawn)] = (drawn @ sums) / (drawn @ sizes)[:, None]
    return MeanDraws(values.mean(axis=0), draws, len(values), number)


def macro_sample(samples: Sequence[MeanDraws]) -> MeanDraws:
    """Return the unweighted mean of strata."""
    draws = [sample.draws for sample in samples if sample.draws is not None]
    return MeanDraws(
        means=np.mean([sample.means for sample in samples], axis=0),
        draws=np.mean(draws, axis=0) if len(draws) == len(samples) else None,
        n=sum(sample.n for sample in samples),
        clusters=sum(sample.clusters for sample in samples),
    )
