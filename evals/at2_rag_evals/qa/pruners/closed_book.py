"""Nothing: what the generator knows without passages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag_evals.qa.pruners.base import Limit, Pruned


class ClosedBookPruner:
    """Keeps no chunk, whatever the budget."""

    name = "closed_book"
    budgeted = False
    ordered = False
    settings: Mapping[str, object] = MappingProxyType({})

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Choose without looking at the limit."""
        return Pruned((), 0.0)
