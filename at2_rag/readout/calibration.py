"""From the scores of one call to probabilities.

Two probabilities: that a chunk is *relevant*, which means that it is evidence for the answer; and
that the question is *answerable*, which means that some chunk holds the answer.

Scores rank the chunks of one call; they say little of whether the best is any good. So a second
readout of the same features is fitted to tell evidence from everything else, over all calls, those
without any evidence included. The log-sum-exp of its logits over the call's chunks is the call's
*evidence*. Both probabilities are logistic functions (Platt scaling; J. Platt, "Probabilistic
Outputs for Support Vector Machines", 1999): for a chunk of its score, the logarithm of its share of
the softmax and the logarithm of the number of chunks; for a call of these of its best chunk, and of
the evidence. No chunk is likelier relevant than the question is answerable, and within a call a
chunk that scores higher is never less likely to be relevant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.errors import HeadWeightsError
from at2_rag.readout.scores import best_by_owner

CHUNK_TERMS = ("score", "log_share", "log_count", "constant")
"""What decides a chunk's probability."""

CALL_TERMS = ("best_score", "best_log_share", "evidence", "log_count", "constant")
"""What decides a call's probability."""

RISING = 2
"""How many of the `CHUNK_TERMS`, from the first, differ within a call: no slope of theirs may be
below 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Makes probabilities of the scores of head weights.

    Raises:
        HeadWeightsError: As `checked_numbers`, or if the evidence readout isn't finite.
    """

    evidence_weight: npt.NDArray[np.float32]  # [P, L, H], the second readout
    evidence_bias: float
    chunk: tuple[float, ...]  # slopes for CHUNK_TERMS, and the constant
    call: tuple[float, ...]  # slopes for CALL_TERMS, and the constant
    unread: float = 0.0  # share of the text it was fitted to that the model hardly reads, in [0, 1]

    def __post_init__(self) -> None:
        chunk = checked_numbers("chunk", self.chunk, CHUNK_TERMS, rising=CHUNK_TERMS[:RISING])
        object.__setattr__(self, "chunk", chunk)
        object.__setattr__(self, "call", checked_numbers("call", self.call, CALL_TERMS))
        if not (np.isfinite(self.evidence_weight).all() and math.isfinite(self.evidence_bias)):
            raise HeadWeightsError(
                "the calibration's evidence weights hold NaN or infinity; calibrate again"
            )
        if not 0 <= self.unread <= 1:
            raise HeadWeightsError(
                f"the calibration's unread is {self.unread}, a share from 0 to 1; calibrate again"
            )

    def evidence(self, features: npt.ArrayLike, owners: npt.ArrayLike | None = None) -> float:
        """Return the evidence of a call whose sources have the features [S, F].

        Sources that weren't read by all passes, NaN, are left out. `owners` [S] says which chunk
        each source is a window of, of which the best counts; None if each is a chunk.
        """
        logits = weighted(features, self.evidence_weight) + self.evidence_bias
        return total_evidence(logits, owners)

    def probabilities(self, scores: npt.ArrayLike, answerable: float) -> Floats:
        """Return for each chunk of a call the probability that it is relevant, [S] in [0, 1].

        `scores` [S] are those of all of its chunks; `answerable` is the most that any can have.
        """
        return np.minimum(logistic(chunk_terms(scores), self.chunk), answerable)

    def answerable(self, scores: npt.ArrayLike, evidence: float) -> float:
        """Return the probability that some chunk of a call, of at least one, holds the answer."""
        return float(logistic(call_terms(scores, evidence), self.call))

    @property
    def slope(self) -> float:
        """By how much a chunk's logit rises with its score, those of the others as they are."""
        return self.chunk[0] + self.chunk[1]

    def numbers(self) -> dict[str, Any]:
        """Return slopes and constants by their names, JSON-ready."""
        return {
            "chunk": dict(zip(CHUNK_TERMS, self.chunk, strict=True)),
            "call": dict(zip(CALL_TERMS, self.call, strict=True)),
            "unread": self.unread,
        }

    @classmethod
    def from_numbers(
        cls,
        numbers: Mapping[str, Any],
        evidence_weight: npt.NDArray[np.float32],
        evidence_bias: float,
    ) -> Calibration:
        """Return the calibration with these numbers; KeyError or ValueError if one is unusable."""
        chunk = in_order(numbers["chunk"], CHUNK_TERMS)
        call = in_order(numbers["call"], CALL_TERMS)
        unread = float(numbers.get("unread", 0.0))
        return cls(evidence_weight, evidence_bias, chunk, call, unread)


def checked_numbers(
    what: str, numbers: Iterable[float], terms: tuple[str, ...], *, rising: tuple[str, ...] = ()
) -> tuple[float, ...]:
    """Return the numbers of the named terms as floats.

    Raises:
        HeadWeightsError: If there are not as many numbers as terms, one isn't finite, or one of the
            `rising` terms is below 0.
    """
    numbers = tuple(map(float, numbers))
    if len(numbers) != len(terms) or not all(map(math.isfinite, numbers)):
        raise HeadWeightsError(
            f"the calibrated numbers for a {what} are {numbers}; expected {len(terms)} finite "
            f"ones, for {', '.join(terms)}"
        )
    for name, number in zip(terms, numbers, strict=True):
        if name in rising and number < 0:
            raise HeadWeightsError(
                f"the calibrated number of {name} for a {what} is {number}; it must not be below "
                "0, else what scores higher would count as less relevant"
            )
    return numbers


def in_order(named: Mapping[str, Any], terms: tuple[str, ...]) -> tuple[float, ...]:
    """Return the numbers of terms in the order of their names."""
    return tuple(float(named[name]) for name in terms)


def weighted(features: npt.ArrayLike, weight: npt.NDArray[np.float32]) -> Floats:
    """Return the weighted sum of each row of features, [S, F] -> [S]."""
    # Row by row: a matrix product would let a source's position change its score's last bit.
    products: Floats = np.asarray(features, np.float64) * weight.astype(np.float64).ravel()
    sums: Floats = products.sum(axis=1)
    return sums


def logistic(terms: Floats, numbers: tuple[float, ...]) -> Floats:
    """Return the logistic function of terms [..., T] by T slopes and a constant."""
    logits: Floats = terms @ np.array(numbers[:-1]) + numbers[-1]
    return np.exp(-np.logaddexp(0.0, -logits))


def total_evidence(logits: npt.ArrayLike, owners: npt.ArrayLike | None = None) -> float:
    """Return the log-sum-exp of evidence logits [S], NaN left out; `owners` as in `evidence`."""
    values = np.asarray(logits, dtype=np.float64)
    read = ~np.isnan(values)
    values = values[read]
    if owners is not None:
        of_read = np.asarray(owners)[read]
        values = best_by_owner(values, of_read.tolist(), int(of_read.max(initial=-1)) + 1)
    return _log_sum(values)


def chunk_terms(scores: npt.ArrayLike) -> Floats:
    """Return the `CHUNK_TERMS`, but for the constant, of a call's chunks, [S, 3]."""
    values = np.asarray(scores, dtype=np.float64)
    log_count = np.full(len(values), np.log(max(1, len(values))))
    return np.stack([values, values - _log_sum(values), log_count], axis=1)


def call_terms(scores: npt.ArrayLike, evidence: float) -> Floats:
    """Return the `CALL_TERMS`, but for the constant, of a call with at least one chunk, [4]."""
    values = np.asarray(scores, dtype=np.float64)
    best = values.max()
    return np.array([best, best - _log_sum(values), evidence, np.log(len(values))])


def _log_sum(values: Floats) -> float:
    """Return the log-sum-exp of all values; minus infinity for none."""
    return float(np.logaddexp.reduce(values)) if values.size else -math.inf
