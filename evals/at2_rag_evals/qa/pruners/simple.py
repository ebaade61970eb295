"""Pruners of a few lines: everything, nothing, the evidence, the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
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
    """Keeps chunks in input order by their labels, the same ones whatever the budget."""

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
