"""Input order: what is lost by not ranking at all."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers.base import ItemScores, Ranker


class FirstKRanker(Ranker):
    """Ranks the chunks in the order they came in."""

    name = "first_k"

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its index, the first highest."""
        return ItemScores(tuple(-float(index) for index in range(len(chunks))))
