"""From the scores of one call to probabilities.

*That a chunk matters*: that leaving it out makes the right answer less likely, see
`training.removal_drops`. *That anything helps*: that the answer stands in any of the chunks.

Both are logistic functions of what the scores say (Platt scaling; J. Platt, "Probabilistic Outputs
for Support Vector Machines", 1999): for a chunk its score and the logarithm of its share of the
softmax, for a call its best score and how far that stands out. So within a call a chunk that scores
higher is never less likely to matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.errors import HeadWeightsError

CHUNK_TERMS = ("score", "log_share")
"""What decides a chunk's probability, besides a constant."""

CALL_TERMS = ("best_score", "best_log_share")
"""What decides a call's probability, besides a constant."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic functions of the scores of given head weights.

    Attributes:
        chunk: Slopes for `CHUNK_TERMS`, none below 0, and the constant.
        call: Slopes for `CALL_TERMS`, and the constant.

    Raises:
        HeadWeightsError: If there are not as many numbers, one isn't finite, or a slope for a chunk
            is below 0.
    """

    chunk: tuple[float, ...]
    call: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, terms in (("chunk", CHUNK_TERMS), ("call", CALL_TERMS)):
            numbers = tuple(map(float, getattr(self, name)))
            object.__setattr__(self, name, numbers)
            if len(numbers) != len(terms) + 1 or not all(map(math.isfinite, numbers)):
                raise HeadWeightsError(
                    f"the calibration's numbers for a {name} are {numbers}; expected "
                    f"{len(terms) + 1} finite ones, for {', '.join(terms)} and a constant"
                )
        if min(self.chunk[:-1]) < 0:
            raise HeadWeightsError(
                f"the calibration's slopes for a chunk are {self.chunk[:-1]}; none may be below 0, "
                "else a chunk that scores higher would count as less likely to matter"
            )

    def probabilities(self, scores: npt.ArrayLike) -> Floats:
        """Return for each chunk of a call the probability that it matters, [S] in (0, 1).

        Args:
            scores: [S], the scores of all of the call's chunks.
        """
        logits: Floats = chunk_terms(scores) @ np.array(self.chunk[:-1]) + self.chunk[-1]
        return np.exp(-np.logaddexp(0.0, -logits))

    def supported(self, scores: npt.ArrayLike) -> float:
        """Return the probability that the answer stands in any chunk of a call; 0 without chunks.

        Args:
            scores: As in `probabilities`.
        """
        if not np.size(scores):
            return 0.0
        logit = call_terms(scores) @ np.array(self.call[:-1]) + self.call[-1]
        return float(np.exp(-np.logaddexp(0.0, -logit)))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "chunk": dict(zip((*CHUNK_TERMS, "constant"), self.chunk, strict=True)),
            "call": dict(zip((*CALL_TERMS, "constant"), self.call, strict=True)),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Calibration:
        """Return what `to_dict` gave.

        Raises:
            HeadWeightsError: If the values are of another form.
        """
        try:
            return cls(
                chunk=tuple(float(values["chunk"][name]) for name in (*CHUNK_TERMS, "constant")),
                call=tuple(float(values["call"][name]) for name in (*CALL_TERMS, "constant")),
            )
        except (KeyError, TypeError, ValueError) as error:
            kind = "an object" if isinstance(values, Mapping) else f"{values!r}"
            raise HeadWeightsError(
                f"the calibration is {kind} that can't be read ({error!r}); calibrate the weights "
                "again with `at2-rag calibrate`"
            ) from error


def chunk_terms(scores: npt.ArrayLike) -> Floats:
    """Return the `CHUNK_TERMS` of a call's chunks, [S, 2]."""
    values = np.asarray(scores, dtype=np.float64)
    return np.stack([values, values - _log_sum(values)], axis=1)


def call_terms(scores: npt.ArrayLike) -> Floats:
    """Return the `CALL_TERMS` of a call with at least one chunk, [2]."""
    values = np.asarray(scores, dtype=np.float64)
    best = values.max()
    return np.array([best, best - _log_sum(values)])


def _log_sum(values: Floats) -> float:
    """Return the log-sum-exp of all values; of none that of nothing."""
    return float(np.logaddexp.reduce(values)) if values.size else -math.inf
