"""Any ranker as a pruner: the best chunks that the budget allows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from at2_rag.data.examples import Example
from at2_rag.options import Order, PruneOptions
from at2_rag.selection.filling import ContextTokens
from at2_rag.selection.select import select
from at2_rag.text.chunks import DEFAULT_SEPARATOR
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.rankers.base import ItemScores, Ranker, score_item
from at2_rag_evals.store import Store, settings_key


class RankingPruner:
    """Keeps the chunks that a ranker scores highest, ties in input order.

    Every item is scored once for all budgets, one at a time with all of torch's threads, so that
    its seconds are what a user waits; scores are stored as they are made.

    Args:
        ranker: The ranker; loaded when an item's scores are needed that aren't stored.
        name: What the report calls the pruner; None for the ranker's name.
        store: The file of stored scores; None to remember them for this run only.
        order: The order in which chunks are passed on; None for the limit's.
    """

    budgeted = True

    def __init__(
        self,
        ranker: Ranker,
        *,
        name: str | None = None,
        store: Path | None = None,
        order: Order | None = None,
    ) -> None:
        self.name = name or ranker.name
        self.settings: Mapping[str, object] = ranker.settings
        self.ordered = order is None
        self._ranker, self._order = ranker, order
        self._store = Store(store, settings_key(ranker), ItemScores)
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the best chunks within the limit.

        Raises:
            ScoringError: If the ranker fails on the item.
        """
        scored = self.scored(item)
        start = time.perf_counter()
        if self._order is not None:
            limit = replace(limit, order=self._order)
        texts = [chunk.rendered for chunk in item.chunks]
        kept = best_within(limit, scored.scores, texts)
        return Pruned(kept, scored.seconds + time.perf_counter() - start)

    def scored(self, item: Example) -> ItemScores:
        """Return the item's scores and what they took; stored ones if there are any."""
        key = content_hash(item.query, item.chunks)
        scored = self._store.get(key)
        if scored is None:
            if not self._ready:
                threads = torch.get_num_threads()
                self._ranker.prepare()  # for many items at a time, a thread each; here it is one
                torch.set_num_threads(threads)
                self._ready = True
            scored = self._store[key] = score_item(self._ranker, item)
        return scored


def best_within(
    limit: Limit, scores: Sequence[float], texts: Mapping[int, str] | Sequence[str]
) -> tuple[int, ...]:
    """Return the indices of the best chunks within a limit, in the order they are passed on.

    `texts` are what is passed on of the chunk at each index that may be kept.
    """
    options = PruneOptions(
        top_k=limit.budget.top_k, max_tokens=limit.budget.max_tokens, order=limit.order
    )
    return select(
        scores,
        options,
        tokens=ContextTokens(
            limit.count, DEFAULT_SEPARATOR, lambda kept: [texts[index] for index in kept]
        ),
    ).kept
