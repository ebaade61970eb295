"""The shortlist: which chunks of a call are read by more than the late pass.

Late reading of all chunks costs little, the other passes a copy of the question for each chunk. So
these read only the chunks that late head weights rank first. All others keep their late score,
brought to the scale of the head weights' scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats
from at2_rag.errors import HeadWeightsError
from at2_rag.reading.late import KeyHeads
from at2_rag.readout.calibration import weighted


def used_heads(weights: Sequence[npt.NDArray[np.float32]], count: int) -> KeyHeads:
    """Return the key heads, `count` of a layer, that have a weight in any of [L, H]."""
    by_head = [np.abs(weight).reshape(len(weight), count, -1).sum(axis=2) for weight in weights]
    return tuple((int(layer), int(head)) for layer, head in np.argwhere(np.sum(by_head, axis=0)))


NUMBERS = ("bias", "slope", "constant", "least", "most", "gap")


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """What a readout is fitted to that adds features of shortlisted chunks to the late scores."""

    shortlist: Shortlist
    mean: Floats  # [F], of the features of shortlisted chunks
    centre: float  # mean late score

    @classmethod
    def of(cls, shortlist: Shortlist, features: npt.NDArray[np.float32]) -> Design:
        """Return the design for `features` [N, F], NaN in passes that didn't read a chunk."""
        read = features[~np.isnan(features[:, -1])]
        centre = float(shortlist.late_scores(features).mean())
        return cls(shortlist, read.mean(axis=0, dtype=np.float64), centre)

    def terms(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the terms [N, F + 2] of chunks with `features` [N, F].

        The features, which beside a shortlist are the mean of those on one; the late score less
        the centre; whether a chunk is beside a shortlist.
        """
        beside = np.isnan(features[:, -1])
        late = self.shortlist.late_scores(features) - self.centre
        filled = np.where(beside[:, None], self.mean, features)
        return np.column_stack([filled, late, beside]).astype(np.float32)

    def fitted(self, weight: Floats, bias: float) -> tuple[Floats, float, Shortlist]:
        """Return what has the scores of a fit, [F + 2] and bias.

        Weights [F] and bias of shortlisted chunks, and the shortlist, which scores the others.
        """
        slope, step = max(0.0, float(weight[-2])), float(weight[-1])
        of_features = weight[:-2].copy()
        bias -= slope * self.centre
        constant = float(self.mean @ of_features) + bias + step
        of_features[: self.shortlist.weight.size] += slope * self.shortlist.weight.ravel()
        shortlist = replace(self.shortlist, slope=slope, constant=constant)
        return of_features, bias + slope * self.shortlist.bias, shortlist


@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """Late head weights that choose the shortlist.

    Attributes:
        weight: [L, H] float32, for the log ratios of the late pass.
        bias: Added to every late score.
        slope: Scale of the late scores of chunks that aren't shortlisted, at least 0.
        constant: Added to these.
        least: Fewest chunks of a shortlist, at least 1; all chunks of a call with fewer.
        most: Most chunks of it.
        gap: A chunk whose late score is within this of the best one's is shortlisted, as far as
            `most` allows; at least 0.

    Raises:
        HeadWeightsError: If a number is out of its range or not finite.
    """

    weight: npt.NDArray[np.float32]
    bias: float
    slope: float = 1.0
    constant: float = 0.0
    least: int = 3
    most: int = 10
    gap: float = 3.0

    def __post_init__(self) -> None:
        numbers = self.numbers()
        finite = np.isfinite(self.weight).all() and np.isfinite(list(numbers.values())).all()
        if not (finite and 1 <= self.least <= self.most and self.gap >= 0 and self.slope >= 0):
            raise HeadWeightsError(
                f"the shortlist's numbers are {numbers}; expected finite weights and numbers, "
                "1 <= least <= most, gap and slope at least 0"
            )

    @property
    def layers(self) -> int:
        """Layers in use, from the first."""
        return len(self.weight)

    def key_heads(self, count: int) -> KeyHeads:
        """Return the key heads, `count` of a layer, that have a weight."""
        return used_heads([self.weight], count)

    @property
    def digest(self) -> str:
        """A hash of all that decides which chunks are shortlisted."""
        rule = [self.least, self.most, self.gap]
        return hashlib.sha256(self.weight.tobytes() + json.dumps(rule).encode()).hexdigest()

    def chosen(self, scores: Floats) -> Bools:
        """Return which chunks are shortlisted, [S], by their late scores [S]; ties keep order."""
        near = int(np.count_nonzero(scores >= scores.max(initial=-np.inf) - self.gap))
        count = min(max(near, self.least), self.most)
        chosen = np.zeros(len(scores), dtype=bool)
        chosen[np.argsort(-scores, kind="stable")[:count]] = True
        return chosen

    def refitted(self, weight: Floats, bias: float) -> Shortlist:
        """Return the same rule with other late weights, [L x H], and their bias."""
        shape = self.weight.shape
        return replace(self, weight=weight.reshape(shape).astype(np.float32), bias=bias)

    def beside(self, features: npt.ArrayLike) -> Floats:
        """Return the scores [S] of sources that aren't shortlisted, by their features [S, F]."""
        return self.slope * self.late_scores(features) + self.constant

    def late_scores(self, features: npt.ArrayLike) -> Floats:
        """Return the late scores [S] of sources with features [S, F], the late ones first."""
        return weighted(np.asarray(features)[:, : self.weight.size], self.weight) + self.bias

    def numbers(self) -> dict[str, Any]:
        """Return all numbers but the weights by their names, JSON-ready."""
        return {name: getattr(self, name) for name in NUMBERS}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any], weight: npt.NDArray[np.float32]) -> Shortlist:
        """Return what `numbers` gave, with the weights; KeyError or ValueError if unusable."""
        whole = ("least", "most")
        read: dict[str, Any] = {
            name: (int if name in whole else float)(numbers[name]) for name in NUMBERS
        }
        return cls(weight, **read)
