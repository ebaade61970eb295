"""Random order: what guessing gets."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import content_hash
from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.seeding import generator


class RandomRanker(Ranker):
    """Scores drawn at random; they depend on the seed and the item's content alone."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.settings = {"seed": seed}
        self._seed = seed

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Draw one number for each chunk."""
        rng = generator(self._seed, "random", content_hash(query, chunks))
        return ItemScores(tuple(rng.random(len(chunks)).tolist()))
