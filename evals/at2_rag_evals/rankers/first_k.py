"""Input order: what is lost by not ranking at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers.base import ItemScores


class FirstKRanker:
    """Ranks the chunks in the order they came in."""

    name = "first_k"
    workers = 1
    settings: Mapping[str, object] = MappingProxyType({})

    def prepare(self) -> None:
        """Do nothing; there is nothing to load."""

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its place, the first highest."""
        return ItemScores(tuple(-float(place) for place in range(len(chunks))))
