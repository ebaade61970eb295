"""Pruning inside chunks: which units of their texts are kept, and what must not be dropped."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.readout.calibration import ChunkScores
from at2_rag.text.chunks import Chunk
from at2_rag.text.protection import Span
from at2_rag.text.units import Place, text_units

Floats = npt.NDArray[np.float64]

_LEAST = 1e-300
"""Least probability that has a logarithm."""


def unit_places(chunks: Sequence[Chunk]) -> list[Place]:
    """Return where the units of chunks' texts are, in order; a blank text has none."""
    return [(i, *span) for i, chunk in enumerate(chunks) for span in text_units(chunk.text)]


@dataclass(frozen=True, slots=True, eq=False)
class UnitScores:
    """What is said of the units of a call's texts.

    Attributes:
        scores: [U] float64, finite; larger is better.
        probabilities: [U], that each holds evidence, rising with the scores; None if unknown.
    """

    scores: Floats
    probabilities: Floats | None = None


def divided(
    read: ChunkScores, own: Floats, places: Sequence[Place], *, additive: bool = False
) -> UnitScores:
    """Return unit scores by which what each chunk has is divided among its units.

    A unit's part is its share of the softmax over its chunk's units: of the chunk's share of the
    softmax over all, or of its probability.

    Args:
        read: What is said of the chunks.
        own: [U], each unit's own score by the same head weights.
        places: The U units.
        additive: Whether scores add up and are no logits: they are as they should be then.
    """
    if additive:
        return UnitScores(own)
    owners, log_shares = _log_shares(own, places)
    if read.probabilities is None:
        return UnitScores(read.scores[owners] + log_shares)
    parts: Floats = read.probabilities[owners] * np.exp(log_shares)
    return UnitScores(np.log(np.maximum(parts, _LEAST)), parts)


def _log_shares(
    unit_scores: Floats, places: Sequence[Place]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return each unit's chunk, and the logarithm of its share of the softmax over it, [U]."""
    owners = np.array([index for index, _, _ in places], dtype=np.int64)
    total = np.full(owners.max(initial=-1) + 1, -np.inf)
    np.logaddexp.at(total, owners, unit_scores)
    return owners, unit_scores - total[owners]


def protected_units(places: Sequence[Place], protected: Sequence[Sequence[Span]]) -> list[int]:
    """Return which units hold something protected, ascending.

    Args:
        places: The units, in order.
        protected: For each chunk ranges of its text, ascending and apart from one another.
    """
    ends = [[last for _, last in own] for own in protected]
    found = []
    for number, (index, start, end) in enumerate(places):
        next_one = bisect_right(ends[index], start)
        if next_one < len(ends[index]) and protected[index][next_one][0] < end:
            found.append(number)
    return found


def kept_spans(
    places: Sequence[Place], kept: Iterable[int], units: Mapping[int, int]
) -> dict[int, tuple[Span, ...] | None]:
    """Return what is kept of each chunk that has a kept unit, None for all of it.

    Neighbours are joined, with the white space between them.

    Args:
        places: The units, in order.
        kept: Which of them are kept.
        units: How many units each chunk has.
    """
    runs: dict[int, list[Span]] = {}
    chosen: Counter[int] = Counter()
    before = None
    for number in sorted(kept):
        index, start, end = places[number]
        own = runs.setdefault(index, [])
        chosen[index] += 1
        if own and before == number - 1:
            start = own.pop()[0]
        own.append((start, end))
        before = number
    return {
        index: None if chosen[index] == units[index] else tuple(own) for index, own in runs.items()
    }
