"""Everything, in input order: what is to be beaten."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag_evals.qa.pruners.base import Limit, Pruned


class KeepAllPruner:
    """Keeps every chunk, whatever the budget."""

    name = "none"
    budgeted = False
    ordered = False
    settings: Mapping[str, object] = MappingProxyType({})

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose without looking at the limit."""
        return Pruned(tuple(range(len(item.chunks))), 0.0)
