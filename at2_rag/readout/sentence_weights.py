"""Sentence weights: from scores of chunks and sentences to which sentences are relevant.

A sentence's score combines its chunk's score with the question's attention to its tokens, by
weights learned from which sentences hold the evidence. Its probability is a logistic function, as
for chunks (`calibration`), of the score, the logarithm of its share of the softmax over all
sentences, and the call's greatest evidence logit.
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

SENTENCE_TERMS = ("chunk", "chunk_at_first", "sentence")
"""Terms of a sentence's score: its chunk's last score, its chunk's first score (before the question
was read again), and the sentence's score by the head weights of chunks."""


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
                f"the sentence weights' slopes are {self.score[-1]} for a sentence's score and "
                f"{self.likely[:RISING]} for score and share; none may be below 0"
            )

    def judge(
        self, first: Floats, last: ChunkScores, sentences: Floats, places: Sequence[Place]
    ) -> UnitScores:
        """Return the scores and probabilities of a call's sentences.

        Args:
            first: [S], the chunks' first scores.
            last: The chunks' last scores.
            sentences: [U], each sentence's score by the head weights of chunks.
            places: Where the U sentences are.
        """
        owners = [index for index, _, _ in places]
        scores: Floats = sentence_terms(first, last.scores, sentences, owners) @ np.array(
            self.score
        )
        if last.evidence is None:
            return UnitScores(scores)
        return UnitScores(scores, logistic(chunk_terms(scores, last.evidence), self.likely))

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
    first: npt.ArrayLike,
    last: npt.ArrayLike,
    sentences: npt.ArrayLike,
    owners: npt.ArrayLike,
) -> Floats:
    """Return the `SENTENCE_TERMS` of a call's sentences, [U, 3].

    Args:
        first: [S], the chunks' first scores.
        last: [S], the chunks' last scores.
        sentences: [U], each sentence's score by the head weights of chunks.
        owners: [U], each sentence's chunk.
    """
    chunks = np.asarray(owners, dtype=np.int64)
    return np.stack(
        [
            np.asarray(last, np.float64)[chunks],
            np.asarray(first, np.float64)[chunks],
            np.asarray(sentences, np.float64),
        ],
        axis=1,
    )
