"""Scores of one call, and probabilities where the head weights are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from at2_rag.arrays import Floats, check_finite
from at2_rag.text.units import UnitSpan

_LEAST_PROBABILITY = 1e-300
"""Least probability that has a logarithm."""

_EVEN = 0.5  # probability of what nothing is known about


@dataclass(frozen=True, slots=True, eq=False)
class UnitScores:
    """Scores of the units of a call's texts.

    Attributes:
        scores: [U] float64, finite; larger is better.
        probabilities: [U], the probability that each unit is relevant, rising with the scores;
            None where the head weights aren't calibrated.
    """

    scores: Floats
    probabilities: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkScores(UnitScores):
    """Scores of a call's chunks, [S] as above, and of the call.

    A chunk of several windows has the score of its best one.

    Attributes:
        answerable: The probability that any chunk holds the answer; None where the head weights
            aren't calibrated.
    """

    answerable: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of a call's chunks, and of the units that the limits choose among."""

    chunks: ChunkScores
    units: UnitScores
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what is out of the ordinary with the reading


def best_by_owner(scores: Floats, owners: Sequence[int], count: int) -> Floats:
    """Return the best of the `scores` [N] of each owner, [count]; `owners` [N] are their indices.

    Raises:
        ScoringError: If a score isn't finite.
    """
    check_finite(scores)
    best = np.full(count, -np.inf)
    np.maximum.at(best, np.array(owners), scores)
    return best


def divided(
    chunks: ChunkScores, units: Floats, spans: Sequence[UnitSpan], *, additive: bool = False
) -> UnitScores:
    """Divide each chunk's share, or its probability, among its units.

    A unit gets its share of the softmax over its chunk's units: of the chunk's share of the
    softmax over all chunks, or of the chunk's probability. `units` [U] are scores by the head
    weights of chunks; additive ones are no logits and are returned as they are.
    """
    if additive:
        return UnitScores(units)
    owners = np.array([index for index, _, _ in spans], dtype=np.int64)
    totals = np.full(owners.max(initial=-1) + 1, -np.inf)
    np.logaddexp.at(totals, owners, units)
    log_shares = units - totals[owners]
    if chunks.probabilities is None:
        return UnitScores(chunks.scores[owners] + log_shares)
    parts: Floats = chunks.probabilities[owners] * np.exp(log_shares)
    return UnitScores(np.log(np.maximum(parts, _LEAST_PROBABILITY)), parts)


def doubted(scores: ChunkScores, doubt: float) -> ChunkScores:
    """Return scores whose probabilities are mixed with those of a call of which nothing is known.

    That is as likely answerable as not, by each of its chunks as likely as by any other. `doubt` is
    the share of these, in [0, 1].
    """
    if scores.probabilities is None or scores.answerable is None:
        return scores
    likely = drawn_to_even(scores.probabilities, doubt)
    answerable = scores.answerable + doubt * (_EVEN - scores.answerable)
    return ChunkScores(scores.scores, likely, answerable)


def drawn_to_even(likely: Floats, doubt: float) -> Floats:
    """Return the probabilities of a call's parts [N], mixed with such of which none is likelier."""
    return likely + doubt * (_EVEN / len(likely) - likely)
