"""What decides which sentences of which chunks are kept: sentence weights.

A sentence is worth as much as its chunk is, and as what the question's attention to its own tokens
says. *Sentence weights* make a score of both, learned from which sentences hold the evidence, and
a probability of that: a logistic function, as for chunks (`calibration`), of the score, the
logarithm of its share of the softmax over all sentences, and the call's greatest evidence logit.
"Sentences" are all units of a text that are kept or dropped as a whole, see `text_units`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.errors import HeadWeightsError
from at2_rag.readout.calibration import (
    CHUNK_TERMS,
    RISING,
    by_name,
    chunk_terms,
    in_order,
    logistic,
    unreadable,
)
from at2_rag.readout.scores import ChunkScores, UnitScores
from at2_rag.text.units import Place

SENTENCE_TERMS = ("chunk", "chunk_at_first", "own")
"""What a sentence's score is of: its chunk's score, that before the question was asked again (the
same where it wasn't), and its own by the same head weights."""


@dataclass(frozen=True, slots=True)
class SentenceWeights:
    """What makes scores and probabilities of sentences.

    Attributes:
        score: What each of the `SENTENCE_TERMS` counts; the last at least 0.
        likely: Slopes for `calibration.CHUNK_TERMS` of sentences' scores, and the constant.

    Raises:
        HeadWeightsError: If there are not as many numbers, one isn't finite, or a slope that has to
            be at least 0 is below.
    """

    score: tuple[float, ...]
    likely: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, terms in (("score", SENTENCE_TERMS), ("likely", (*CHUNK_TERMS, "constant"))):
            numbers = tuple(map(float, getattr(self, name)))
            object.__setattr__(self, name, numbers)
            if len(numbers) != len(terms) or not all(map(math.isfinite, numbers)):
                raise HeadWeightsError(
                    f"the sentence weights' numbers are {numbers}; expected {len(terms)} finite "
                    f"ones, for {', '.join(terms)}"
                )
        if min(self.score[-1], *self.likely[:RISING]) < 0:
            raise HeadWeightsError(
                f"the sentence weights' slopes are {self.score[-1]} for a sentence's own score and "
                f"{self.likely[:RISING]} for score and share; none may be below 0"
            )

    def judge(
        self, first: Floats, read: ChunkScores, own: Floats, places: Sequence[Place]
    ) -> UnitScores:
        """Return what is said of a call's sentences.

        Args:
            first: [S], the chunks' first scores.
            read: What is said of the chunks in the end.
            own: [U], each sentence's own score.
            places: Where the U sentences are.
        """
        owners = [index for index, _, _ in places]
        scores: Floats = sentence_terms(first, read.scores, own, owners) @ np.array(self.score)
        if read.evidence is None:
            return UnitScores(scores)
        return UnitScores(scores, logistic(chunk_terms(scores, read.evidence), self.likely))

    def numbers(self) -> dict[str, Any]:
        """Return all numbers by their names, JSON-ready."""
        return {
            "score": dict(zip(SENTENCE_TERMS, self.score, strict=True)),
            "likely": by_name(self.likely, CHUNK_TERMS),
        }

    @classmethod
    def from_numbers(cls, numbers: Any) -> SentenceWeights:
        """Return what `numbers` gave.

        Raises:
            HeadWeightsError: If they are of another form.
        """
        try:
            score = tuple(float(numbers["score"][name]) for name in SENTENCE_TERMS)
            likely = in_order(numbers["likely"], CHUNK_TERMS)
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable("sentence weights", numbers, error, " --sentences") from error
        return cls(score, likely)


def sentence_terms(
    first: npt.ArrayLike, after: npt.ArrayLike, own: npt.ArrayLike, owners: npt.ArrayLike
) -> Floats:
    """Return the `SENTENCE_TERMS` of a call's sentences, [U, 3].

    Args:
        first: [S], the chunks' first scores.
        after: [S], the chunks' scores in the end.
        own: [U], each sentence's own.
        owners: [U], each sentence's chunk.
    """
    places = np.asarray(owners, dtype=np.int64)
    return np.stack(
        [
            np.asarray(after, np.float64)[places],
            np.asarray(first, np.float64)[places],
            np.asarray(own, np.float64),
        ],
        axis=1,
    )
