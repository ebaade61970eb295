"""Sentence weights: from scores of chunks and sentences to which sentences are relevant.

A sentence's score combines its chunk's score with the question's attention to its tokens, by
weights learned from which sentences hold the evidence. Its probability is a logistic function, as
for chunks (`calibration`), of the score, the logarithm of its share of the softmax over all
sentences, and the call's greatest evidence logit.
"Sentences" are all units of a text that are kept or dropped as a whole, see `text_units`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Floats
from at2_rag.readout.calibration import (
    CHUNK_TERMS,
    RISING,
    checked_numbers,
    chunk_terms,
    in_order,
    logistic,
)
from at2_rag.readout.scores import ChunkScores, UnitScores, drawn_to_even
from at2_rag.text.units import UnitSpan

SENTENCE_TERMS = ("chunk", "chunk_at_first", "sentence")
"""Terms of a sentence's score: its chunk's last score, its chunk's first score (before the question
was read again), and the sentence's score by the head weights of chunks."""


@dataclass(frozen=True, slots=True)
class SentenceWeights:
    """What makes scores and probabilities of sentences; raises as `checked_numbers`."""

    score: tuple[float, ...]  # weights of the SENTENCE_TERMS; the last at least 0
    likely: tuple[float, ...]  # slopes for the CHUNK_TERMS of sentences' scores, and the constant

    def __post_init__(self) -> None:
        for name, terms, rising in (
            ("score", SENTENCE_TERMS, SENTENCE_TERMS[-1:]),
            ("likely", CHUNK_TERMS, CHUNK_TERMS[:RISING]),
        ):
            numbers = checked_numbers("sentence", getattr(self, name), terms, rising=rising)
            object.__setattr__(self, name, numbers)

    def judge(
        self,
        first: Floats,
        last: ChunkScores,
        sentences: Floats,
        spans: Sequence[UnitSpan],
        *,
        doubt: float = 0.0,
    ) -> UnitScores:
        """Return the scores and probabilities of a call's sentences; arguments as below.

        No sentence is likelier than the likeliest chunk. `doubt` is that of `last`, see `doubted`.
        """
        owners = [index for index, _, _ in spans]
        terms = sentence_terms(first, last.scores, sentences, owners)
        scores: Floats = terms @ np.array(self.score)
        if last.probabilities is None:
            return UnitScores(scores)
        likely = drawn_to_even(logistic(chunk_terms(scores), self.likely), doubt)
        return UnitScores(scores, np.minimum(likely, last.probabilities.max()))

    def numbers(self) -> dict[str, Any]:
        """Return all numbers by their names, JSON-ready."""
        return {
            "score": dict(zip(SENTENCE_TERMS, self.score, strict=True)),
            "likely": dict(zip(CHUNK_TERMS, self.likely, strict=True)),
        }

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> SentenceWeights:
        """Return what `numbers` gave; raises as `Calibration.from_numbers`."""
        score = in_order(numbers["score"], SENTENCE_TERMS)
        return cls(score, in_order(numbers["likely"], CHUNK_TERMS))


def sentence_terms(
    first: npt.ArrayLike, last: npt.ArrayLike, sentences: npt.ArrayLike, owners: npt.ArrayLike
) -> Floats:
    """Return the `SENTENCE_TERMS` of a call's sentences, [U, 3].

    Args:
        first: [S], the chunks' first scores.
        last: [S], the chunks' last scores.
        sentences: [U], each sentence's score by the head weights of chunks.
        owners: [U], the index of each sentence's chunk.
    """
    chunks = np.asarray(owners, dtype=np.int64)
    columns = [np.asarray(last)[chunks], np.asarray(first)[chunks], np.asarray(sentences)]
    return np.stack(columns, axis=1).astype(np.float64)
