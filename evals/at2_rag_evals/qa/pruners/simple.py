"""Pruners of a few lines: everything, nothing, the evidence, the end, a few chosen heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag.pruner import AT2Pruner
from at2_rag.text.chunks import Chunk
from at2_rag_evals.fidelity.systems.query_heads import EvidenceHeads
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.rankers.base import ItemScores, Ranker

FIXED: Mapping[str, Callable[[bool], bool]] = MappingProxyType(
    {
        "none": lambda label: True,  # what is to be beaten
        "closed_book": lambda label: False,  # what the generator knows without passages
        "oracle": lambda label: label,  # what no pruner can know
    }
)
"""Name -> whether a chunk is kept, by its label."""


class FixedPruner:
    """Keeps chunks in input order by their labels, the same ones whatever the budget.

    Args:
        name: One of `FIXED`.
    """

    budgeted = False
    ordered = False
    settings: Mapping[str, object] = MappingProxyType({})

    def __init__(self, name: str) -> None:
        self.name = name

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose by the labels alone."""
        keep = FIXED[self.name]
        return Pruned(tuple(n for n, label in enumerate(item.labels) if keep(label)), 0.0)


class LastKRanker(Ranker):
    """Ranks the chunks from the last to the first."""

    name = "last_k"

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its position, the last highest."""
        return ItemScores(tuple(map(float, range(len(chunks)))))


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
