"""The question read again beside the best chunk, for chunks that are relevant only with it.

Where was the author of "Emma" born? Nothing in the question leads to a chunk about Steventon, but
beside the one that says who wrote "Emma" it does. So the question is read once more, the best chunk
after it, over the states of the other chunks; *multi-hop weights* make scores of the attention that
both pay to each, and of its first score. The best chunk stays first. What all the others have
of the softmax stays the same and is divided anew among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.errors import HeadWeightsError
from at2_rag.options import UNANSWERABLE_BELOW, PruneOptions
from at2_rag.readout.calibration import (
    CHUNK_TERMS,
    RISING,
    by_name,
    chunk_terms,
    in_order,
    logistic,
    unreadable,
)
from at2_rag.readout.scores import ChunkScores
from at2_rag.text.chunks import Chunk

MOST_WORDS = 200
"""Words of the best chunk that stand after the question; what follows them doesn't."""

_BESIDE = 1e-6  # by how much the best chunk's score is above the others at least


@dataclass(frozen=True, slots=True, eq=False)
class MultiHop:
    """Weights for the second reading.

    Attributes:
        weight: [L, H] float32, for the features of the pass "together".
        score: What a chunk's first score counts, at least 0.
        chunk: Slopes for `calibration.CHUNK_TERMS` of the second scores among themselves, and the
            constant: what makes probabilities of them.

    Raises:
        HeadWeightsError: If there are not as many numbers, one isn't finite, or a slope that has to
            be at least 0 is below.
    """

    weight: npt.NDArray[np.float32]
    score: float
    chunk: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunk", tuple(map(float, self.chunk)))
        numbers = (self.score, *self.chunk)
        if len(self.chunk) != len(CHUNK_TERMS) + 1 or not all(map(math.isfinite, numbers)):
            raise HeadWeightsError(
                f"the multi-hop's numbers are {numbers}; expected {len(CHUNK_TERMS) + 2} finite "
                f"ones, for the score, {', '.join(CHUNK_TERMS)} and a constant"
            )
        if min(self.score, *self.chunk[:RISING]) < 0:
            raise HeadWeightsError(
                f"the multi-hop's slopes for scores and share are {numbers[: RISING + 1]}; none "
                "may be below 0"
            )
        if not np.isfinite(self.weight).all():
            raise HeadWeightsError("the multi-hop weights hold NaN or infinity; calibrate again")

    def scores(self, first: npt.ArrayLike, features: npt.ArrayLike) -> Floats:
        """Return the second scores [S] of the other chunks, not yet on the scale of the first.

        Args:
            first: [S], their first scores.
            features: [S, L x H], those of the second reading.
        """
        weighted = np.asarray(features, np.float64) * self.weight.astype(float).ravel()
        second: Floats = self.score * np.asarray(first, np.float64) + weighted.sum(axis=1)
        return second

    def numbers(self) -> dict[str, Any]:
        """Return slopes and constant by their names, JSON-ready."""
        return {"first_score": self.score, "chunk": by_name(self.chunk, CHUNK_TERMS)}

    @classmethod
    def from_parts(cls, numbers: Any, weight: npt.NDArray[np.float32]) -> MultiHop:
        """Return what `numbers` gave, with the weights.

        Raises:
            HeadWeightsError: If the numbers are of another form.
        """
        try:
            chunk = in_order(numbers["chunk"], CHUNK_TERMS)
            score = float(numbers["first_score"])
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable("multi-hop", numbers, error, " --multi-hop") from error
        return cls(weight, score, chunk)


def wants_hop(options: PruneOptions, chunks: int, *, known: bool) -> bool | None:
    """Tell whether the question is read again; None where the first reading decides.

    Args:
        options: The options of the call.
        chunks: How many chunks it has.
        known: Whether the head weights have multi-hop weights.
    """
    if chunks < 2:
        return False
    if options.multi_hop is None and (options.max_missed is None or not known):
        return False
    return options.multi_hop


def reads_again(options: PruneOptions, first: ChunkScores) -> bool:
    """Tell whether the first reading calls for a second one: the best chunk alone misses too much.

    Args:
        options: The options of the call, with a `max_missed`.
        first: The scores after the first reading.
    """
    if first.probabilities is None or options.max_missed is None:
        return False
    unanswerable = first.answerable is not None and first.answerable < UNANSWERABLE_BELOW
    if unanswerable and options.if_unanswerable == "keep_none":
        return False
    only_one = options.top_k == 1 or (unanswerable and options.if_unanswerable == "keep_best")
    if only_one and options.unit == "chunk":  # the best chunk stays the best
        return False
    others = np.delete(first.probabilities, np.argmax(first.scores))
    return float(others.sum()) > options.max_missed


def multi_hop_question(query: str, best: Chunk) -> str:
    """Return the question with the best chunk after it, cut to `MOST_WORDS`."""
    words = best.rendered.split(maxsplit=MOST_WORDS)[:MOST_WORDS]
    return f"{query}\n{' '.join(words)}"


def second_scores(first: Floats, best: int, second: Floats) -> Floats:
    """Return a call's scores [S] after the second reading.

    Args:
        first: [S], the first scores.
        best: The index of the best chunk, which stays first.
        second: [S - 1], the second scores of the others, in order.
    """
    others = np.arange(len(first)) != best
    scores = first.copy()
    scores[others] = divided_anew(first[others], second)
    scores[best] = max(scores[best], scores[others].max() + _BESIDE)
    return scores


def divided_anew(first: Floats, second: Floats) -> Floats:
    """Return second scores, shifted so that their softmax has the mass of the first ones."""
    return second + float(np.logaddexp.reduce(first) - np.logaddexp.reduce(second))


def after_multi_hop(
    first: ChunkScores, best: int, second: Floats, weights: MultiHop
) -> ChunkScores:
    """Return the scores of a call's chunks after the second reading.

    Args:
        first: The scores after the first reading.
        best: The index of the best chunk.
        second: [S - 1], the second scores of the others, in order.
        weights: The multi-hop weights.
    """
    others = np.arange(len(first.scores)) != best
    scores = second_scores(first.scores, best, second)
    if first.probabilities is None or first.evidence is None:
        return ChunkScores(scores, answerable=first.answerable)
    likely = first.probabilities.copy()
    likely[others] = logistic(chunk_terms(scores[others], first.evidence), weights.chunk)
    likely[best] = max(likely[best], likely[others].max())
    return ChunkScores(scores, likely, first.answerable, first.evidence)
