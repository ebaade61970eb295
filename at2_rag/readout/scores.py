"""What the readout says of one call: a score and perhaps a probability for each chunk and unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats, check_finite
from at2_rag.text.units import Place

_LEAST_PROBABILITY = 1e-300
"""Least probability that has a logarithm."""


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
class ChunkScores:
    """Scores of a call's chunks, and of the call.

    Attributes:
        scores: [S] float64, finite; the best window's score for a chunk of several windows.
        probabilities: [S], the probability that each chunk is relevant; None where the head
            weights aren't calibrated.
        answerable: The probability that any chunk holds the answer; None likewise.
        evidence: The greatest evidence logit of the call; None likewise.
    """

    scores: Floats
    probabilities: Floats | None = None
    answerable: float | None = None
    evidence: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """All that the selection needs to know of a call.

    Attributes:
        chunks: Scores of the chunks.
        units: Scores of the units that the limits choose among: chunks or sentences.
        seconds: Seconds per stage, and in `total`.
    """

    chunks: ChunkScores
    units: UnitScores
    seconds: Mapping[str, float] = field(default_factory=dict)


def best_by_owner(scores: Floats, owners: Sequence[int], count: int) -> Floats:
    """Return the best score of each owner, [count]; every owner has at least one.

    Args:
        scores: [N], for example of the windows of chunks.
        owners: [N], the index of each one's owner.
        count: Number of owners.

    Raises:
        ScoringError: If a score isn't finite.
    """
    check_finite(scores)
    best = np.full(count, -np.inf)
    np.maximum.at(best, np.array(owners), scores)
    return best


def divided(
    chunks: ChunkScores, units: Floats, places: Sequence[Place], *, additive: bool = False
) -> UnitScores:
    """Divide each chunk's share, or its probability, among its units.

    A unit gets its share of the softmax over its chunk's units: of the chunk's share of the
    softmax over all chunks, or of the chunk's probability.

    Args:
        chunks: The scores of the chunks.
        units: [U], each unit's score by the head weights of chunks.
        places: The U units.
        additive: Whether scores add up and are no logits; they are returned as they are then.
    """
    if additive:
        return UnitScores(units)
    owners, log_shares = _log_shares(units, places)
    if chunks.probabilities is None:
        return UnitScores(chunks.scores[owners] + log_shares)
    parts: Floats = chunks.probabilities[owners] * np.exp(log_shares)
    return UnitScores(np.log(np.maximum(parts, _LEAST_PROBABILITY)), parts)


def _log_shares(units: Floats, places: Sequence[Place]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return each unit's chunk, and the logarithm of its share of its chunk's softmax, [U]."""
    owners = np.array([index for index, _, _ in places], dtype=np.int64)
    total = np.full(owners.max(initial=-1) + 1, -np.inf)
    np.logaddexp.at(total, owners, units)
    return owners, units - total[owners]
