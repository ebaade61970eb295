"""A few attention heads, chosen on training items because they attend to evidence."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads
from at2_rag_evals.rankers.base import ItemScores, Ranker


class QueryHeadsRanker(Ranker):
    """Scores chunks by the mean attention mass of the heads with most mass on evidence.

    Args:
        name: What the report calls the system.
        heads: The evidence mass that heads are chosen by.
        count: Number of heads.
    """

    def __init__(self, name: str, heads: EvidenceHeads, count: int) -> None:
        self.name = name
        self.settings = {**heads.settings, "heads": count}
        self._heads, self._count = heads, count

    def prepare(self) -> None:
        """Load the model and choose the heads.

        Raises:
            DataError: If a training file can't be read, or none of their items has gold.
        """
        self._pruner = AT2Pruner(self._heads.model, head_weights=self._heads.weights(self._count))

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        return ItemScores(tuple(chunk.score for chunk in self._pruner.score(query, chunks)))
