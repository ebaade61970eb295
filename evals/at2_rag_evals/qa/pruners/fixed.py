"""Pruners that look neither at the budget nor at a word: everything, nothing, the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.rankers.base import ItemScores, Ranker


class FixedPruner:
    """Keeps chunks in input order, the same ones whatever the budget.

    Args:
        name: What the report calls the pruner.
        keep: Whether an item's chunk of this label is kept.
    """

    budgeted = False
    ordered = False
    settings: Mapping[str, object] = MappingProxyType({})

    def __init__(self, name: str, keep: Callable[[bool], bool]) -> None:
        self.name, self._keep = name, keep

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose by the labels alone."""
        kept = tuple(index for index, label in enumerate(item.labels) if self._keep(label))
        return Pruned(kept, 0.0)


FIXED: Mapping[str, Callable[[bool], bool]] = MappingProxyType(
    {
        "none": lambda label: True,  # what is to be beaten
        "closed_book": lambda label: False,  # what the generator knows without passages
        "oracle": lambda label: label,  # what no pruner can know
    }
)
"""Name -> whether a chunk is kept, by its label."""


class LastKRanker(Ranker):
    """Ranks the chunks from the last to the first."""

    name = "last_k"

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its position, the last highest."""
        return ItemScores(tuple(map(float, range(len(chunks)))))
