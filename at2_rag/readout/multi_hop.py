"""The question read again beside the best chunk, for chunks that are relevant only with it.

Where was the author of "Emma" born? Nothing in the question leads to a chunk about Steventon, but
beside the one that says who wrote "Emma" it does. So the question is read once more, the best chunk
after it, together over the ten chunks that rank next. *Multi-hop weights* make scores of the
attention that both pay to each, and of its first score. On the scale of the first scores these
chunks together keep their share of the softmax; only its split among them changes.

The second reading may raise a chunk: to its second score, or to the probability that it has if the
best chunk is right, weighted by how likely that is. It never lowers one, since the best chunk may
be wrong. The best chunk stays first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats, Indices, missed_shares
from at2_rag.errors import HeadWeightsError
from at2_rag.options import PruneOptions
from at2_rag.readout.calibration import (
    RISING,
    Calibration,
    checked_numbers,
    chunk_terms,
    in_order,
    logistic,
    weighted,
)
from at2_rag.readout.scores import ChunkScores
from at2_rag.text.chunks import Chunk

HOP_TERMS = ("score", "log_share", "constant")
"""What decides a chunk's probability beside the best one: the `CHUNK_TERMS`, but for the number of
chunks, which is nearly always the same.
"""

MOST_WORDS = 200
"""How many words of the best chunk stand after the question; the rest of it is left out."""

MOST_TOGETHER = 10
"""How many chunks are read together again: each one's keys and values of all layers are needed."""

LIKELY = 0.5
"""Least probability of the best chunk with which a question is read again to keep enough."""

MISSED = 0.15
"""Share of what is expected above which the best chunk misses too much by itself, so that a
question is read again, unless `max_missed` says otherwise."""

_BESIDE = 1e-6  # by how much the best chunk's score is above the others at least
_LEAST_SLOPE = 1e-3  # of a calibration that hardly heeds scores
_LEAST_LIKELY = 1e-12  # probabilities nearer to 0 or 1 have no usable logit


@dataclass(frozen=True, slots=True, eq=False)
class MultiHop:
    """Weights for the second reading; raises as `checked_numbers`."""

    weight: npt.NDArray[np.float32]  # [L, H], for the features of the second reading
    score: float  # weight of a chunk's first score, at least 0
    chunk: tuple[float, ...]  # slopes for the HOP_TERMS of the second scores, and the constant

    def __post_init__(self) -> None:
        terms, what = ("first_score", *HOP_TERMS), "multi-hop chunk"
        numbers = (self.score, *self.chunk)
        _, *chunk = checked_numbers(what, numbers, terms, rising=terms[: 1 + RISING])
        object.__setattr__(self, "chunk", tuple(chunk))
        if not np.isfinite(self.weight).all():
            raise HeadWeightsError("the multi-hop weights hold NaN or infinity; calibrate again")

    def scores(self, first: npt.ArrayLike, features: npt.ArrayLike) -> Floats:
        """Return the second scores [O] of the other chunks, not yet on the scale of the first.

        They are made of the first scores [O] and the features [O, L x H] of the second reading.
        """
        second: Floats = self.score * np.asarray(first, np.float64)
        return second + weighted(features, self.weight)

    def numbers(self) -> dict[str, Any]:
        """Return slopes and constant by their names, JSON-ready."""
        chunk = dict(zip(HOP_TERMS, self.chunk, strict=True))
        return {"first_score": self.score, "chunk": chunk}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any], weight: npt.NDArray[np.float32]) -> MultiHop:
        """Return what `numbers` gave, with the weights; raises as `Calibration.from_numbers`."""
        chunk = in_order(numbers["chunk"], HOP_TERMS)
        return cls(weight, float(numbers["first_score"]), chunk)


def reads_again(options: PruneOptions, first: ChunkScores) -> bool:
    """Tell whether the best chunk is likely right, but misses too much, by the first scores."""
    if first.probabilities is None or (options.min_p is None and options.max_missed is None):
        return False
    if options.top_k == 1 and options.unit == "chunk":  # the best chunk stays the best
        return False
    limit = MISSED if options.max_missed is None else options.max_missed
    ranked = np.sort(first.probabilities)[::-1]
    return bool(ranked[0] >= LIKELY and missed_shares(ranked)[1] > limit)


def multi_hop_question(query: str, best: Chunk) -> str:
    """Return the question with the best chunk after it, cut to `MOST_WORDS`."""
    words = best.rendered.split(maxsplit=MOST_WORDS)[:MOST_WORDS]
    return f"{query}\n{' '.join(words)}"


def chunks_read_again(first: Floats) -> tuple[int, Indices]:
    """Return the best chunk's index by the first scores [S], and the others' that are read again.

    The others [O], in order, are the `MOST_TOGETHER` that rank next.
    """
    best, *others = np.argsort(-first, kind="stable").tolist()
    return best, np.sort(others[:MOST_TOGETHER]).astype(np.intp)


def hop_terms(scores: npt.ArrayLike) -> Floats:
    """Return the `HOP_TERMS`, but for the constant, of chunks with second scores [O], [O, 2]."""
    return chunk_terms(scores)[:, : len(HOP_TERMS) - 1]


def second_scores(first: Floats, best: int, others: Indices, second: Floats) -> Floats:
    """Return a call's scores [S] after the second reading, which gave [O] to `others`.

    The chunk at index `best` stays first.
    """
    scores = first.copy()
    scores[others] = divided_anew(first[others], second)
    return _best_first(scores, best)


def divided_anew(first: Floats, second: Floats) -> Floats:
    """Return second scores, shifted so that their softmax has the mass of the first ones."""
    return second + float(np.logaddexp.reduce(first) - np.logaddexp.reduce(second))


def after_multi_hop(
    first: ChunkScores,
    best: int,
    others: Indices,
    second: Floats,
    weights: MultiHop,
    calibration: Calibration | None = None,
) -> ChunkScores:
    """Return the scores [S] of a call's chunks after the second reading, raised or as they were.

    Args:
        first: The first scores, with probabilities if there is a calibration.
        best: Index of the best chunk, beside which the question was read.
        others: [O], the indices of the chunks that were read again; all else stays as it is.
        second: [O], what `MultiHop.scores` gave for them.
        weights: Says how likely a second score is that of a relevant chunk.
        calibration: The calibration of the first scores.
    """
    scores = second_scores(first.scores, best, others, second)
    if first.probabilities is None or calibration is None:
        return ChunkScores(_best_first(np.maximum(scores, first.scores), best))
    slope, logits = max(calibration.slope, _LEAST_SLOPE), _logit(first.probabilities)
    beside_best = logistic(hop_terms(scores[others]), weights.chunk)
    before, sure = first.probabilities[others], first.probabilities[best]
    likely = before + sure * np.maximum(beside_best - before, 0.0)
    # A raised chunk has the score that would have been as likely at the first reading.
    by_chance = (_logit(likely) - logits[others]) / slope
    rise = np.zeros_like(scores)
    rise[others] = np.maximum(by_chance, scores[others] - first.scores[others]).clip(min=0.0)
    scores = _best_first(first.scores + rise, best)
    likely = 1 / (1 + np.exp(-logits - slope * rise))
    likely[best] = likely.max()
    answerable = None if first.answerable is None else max(first.answerable, float(likely[best]))
    return ChunkScores(scores, likely, answerable)


def _best_first(scores: Floats, best: int) -> Floats:
    others = np.delete(scores, best)
    scores[best] = max(scores[best], others.max(initial=-np.inf) + _BESIDE)
    return scores


def _logit(likely: Floats) -> Floats:
    bounded = np.clip(likely, _LEAST_LIKELY, 1 - _LEAST_LIKELY)
    logits: Floats = np.log(bounded) - np.log1p(-bounded)
    return logits
