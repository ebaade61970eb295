"""From the scores of one call to probabilities.

Two probabilities: that a chunk is *relevant*, which means that it is evidence for the answer, or
that leaving it out makes the right answer less likely (`Outcome`); and that the question is
*answerable*, which means that some chunk holds the answer.

Scores rank the chunks of one call; they say little of whether the best is any good. So a second
readout of the same features is fitted to tell evidence from everything else, over all calls, those
without any evidence included: its *evidence logits*. Both probabilities are logistic functions
(Platt scaling; J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999): for a chunk of
its score, the logarithm of its share of the softmax, and the call's greatest evidence logit; for a
call of that and of the greatest share. So within a call a chunk that scores higher is never less
likely to be relevant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.errors import HeadWeightsError

Outcome: TypeAlias = Literal["evidence", "removal"]
"""What makes a chunk relevant: that it is labelled as evidence, or that the right answer is less
likely without it."""

CHUNK_TERMS = ("score", "log_share", "best_evidence")
"""What decides a chunk's probability, besides a constant."""

CALL_TERMS = ("best_evidence", "best_log_share")
"""What decides a call's probability, besides a constant."""

RISING = 2
"""How many of the `CHUNK_TERMS`, from the first, differ within a call: no slope of theirs may be
below 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Makes probabilities of the scores of head weights.

    Attributes:
        evidence_weight: [P, L, H] float32, the second readout, shaped like the head weights.
        evidence_bias: Added to every evidence logit.
        chunk: Slopes for `CHUNK_TERMS`, and the constant.
        call: Slopes for `CALL_TERMS`, and the constant.
        outcome: What a chunk's probability is of.

    Raises:
        HeadWeightsError: If there are not as many numbers, one isn't finite, a slope that has to be
            at least 0 is below, or the outcome is unknown.
    """

    evidence_weight: npt.NDArray[np.float32]
    evidence_bias: float
    chunk: tuple[float, ...]
    call: tuple[float, ...]
    outcome: Outcome = "evidence"

    def __post_init__(self) -> None:
        for name, terms in (("chunk", CHUNK_TERMS), ("call", CALL_TERMS)):
            numbers = tuple(map(float, getattr(self, name)))
            object.__setattr__(self, name, numbers)
            if len(numbers) != len(terms) + 1 or not all(map(math.isfinite, numbers)):
                raise HeadWeightsError(
                    f"the calibration's numbers for a {name} are {numbers}; expected "
                    f"{len(terms) + 1} finite ones, for {', '.join(terms)} and a constant"
                )
        if min(self.chunk[:RISING]) < 0:
            raise HeadWeightsError(
                f"the calibration's slopes for score and share are {self.chunk[:RISING]}; none may "
                "be below 0, else a chunk that scores higher would count as less relevant"
            )
        if self.outcome not in get_args(Outcome):
            raise HeadWeightsError(
                f"the calibration's outcome is {self.outcome!r}; this version of at2_rag reads "
                "'evidence' and 'removal'"
            )
        if not (np.isfinite(self.evidence_weight).all() and math.isfinite(self.evidence_bias)):
            raise HeadWeightsError(
                "the calibration's evidence weights hold NaN or infinity; calibrate again"
            )

    def evidence(self, features: npt.ArrayLike) -> Floats:
        """Return the evidence logits [S] of sources with features [S, F]."""
        weighted = np.asarray(features, np.float64) * self.evidence_weight.astype(float).ravel()
        logits: Floats = weighted.sum(axis=1)
        return logits + self.evidence_bias

    def probabilities(self, scores: npt.ArrayLike, best_evidence: float) -> Floats:
        """Return for each chunk of a call the probability that it is relevant, [S] in [0, 1].

        Args:
            scores: [S], the scores of all of the call's chunks.
            best_evidence: The greatest of their evidence logits.
        """
        return logistic(chunk_terms(scores, best_evidence), self.chunk)

    def answerable(self, scores: npt.ArrayLike, best_evidence: float) -> float:
        """Return the probability that the answer stands in any chunk of a call.

        Args:
            scores: As in `probabilities`, at least one.
            best_evidence: See there.
        """
        return float(logistic(call_terms(scores, best_evidence), self.call))

    def numbers(self) -> dict[str, Any]:
        """Return the outcome, and slopes and constants by their names, JSON-ready."""
        return {
            "outcome": self.outcome,
            "chunk": by_name(self.chunk, CHUNK_TERMS),
            "call": by_name(self.call, CALL_TERMS),
        }

    @classmethod
    def from_parts(
        cls, numbers: Any, evidence_weight: npt.NDArray[np.float32], evidence_bias: float
    ) -> Calibration:
        """Return a calibration of what `numbers` gave and of the second readout.

        Raises:
            HeadWeightsError: If the numbers are of another form.
        """
        try:
            chunk = in_order(numbers["chunk"], CHUNK_TERMS)
            call = in_order(numbers["call"], CALL_TERMS)
            outcome = numbers["outcome"]
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable("calibration", numbers, error) from error
        return cls(evidence_weight, evidence_bias, chunk, call, outcome)


def unreadable(what: str, numbers: Any, error: Exception, option: str = "") -> HeadWeightsError:
    """Return the error that says that numbers of head weights are of another form.

    Args:
        what: What they are of.
        numbers: The numbers.
        error: What reading it gave.
        option: What to add to `at2-rag calibrate`, which learns them.
    """
    kind = "an object" if isinstance(numbers, Mapping) else f"{numbers!r}"
    return HeadWeightsError(
        f"for the {what} there is {kind} that can't be read ({error!r}); calibrate the weights "
        f"again with `at2-rag calibrate{option}`"
    )


def by_name(numbers: tuple[float, ...], terms: tuple[str, ...]) -> dict[str, float]:
    """Return the slopes of terms, and the constant, by their names."""
    return dict(zip((*terms, "constant"), numbers, strict=True))


def in_order(named: Any, terms: tuple[str, ...]) -> tuple[float, ...]:
    """Return what `by_name` gave in order again.

    Raises:
        KeyError: If one is missing; TypeError or ValueError if it isn't of that form.
    """
    return tuple(float(named[name]) for name in (*terms, "constant"))


def logistic(terms: Floats, numbers: tuple[float, ...]) -> Floats:
    """Return the logistic function of terms [..., T] by T slopes and a constant."""
    logits: Floats = terms @ np.array(numbers[:-1]) + numbers[-1]
    return np.exp(-np.logaddexp(0.0, -logits))


def chunk_terms(scores: npt.ArrayLike, best_evidence: float) -> Floats:
    """Return the `CHUNK_TERMS` of a call's chunks, [S, 3]."""
    values = np.asarray(scores, dtype=np.float64)
    shares = values - _log_sum(values)
    return np.stack([values, shares, np.full(len(values), best_evidence)], axis=1)


def call_terms(scores: npt.ArrayLike, best_evidence: float) -> Floats:
    """Return the `CALL_TERMS` of a call with at least one chunk, [2]."""
    values = np.asarray(scores, dtype=np.float64)
    return np.array([best_evidence, values.max() - _log_sum(values)])


def _log_sum(values: Floats) -> float:
    """Return the log-sum-exp of all values; of none that of nothing."""
    return float(np.logaddexp.reduce(values)) if values.size else -math.inf
