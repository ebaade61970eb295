"""Any ranker as a pruner: the best chunks that the budget allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from at2_rag.data.examples import Example
from at2_rag.errors import AT2Error, ScoringError
from at2_rag.options import Order, PruneOptions
from at2_rag.selection.select import select
from at2_rag.text.chunks import DEFAULT_SEPARATOR
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.rankers.base import Ranker
from at2_rag_evals.score_store import ScoredItem, ScoreStore


class RankingPruner:
    """Keeps the chunks that a ranker scores highest, ties in input order.

    Every item is scored once for all budgets, one at a time with all of torch's threads, so that
    its seconds are what a user waits; scores are stored as they are made.

    Args:
        ranker: The ranker; loaded when an item's scores are wanted that aren't stored.
        name: What the report calls the pruner; None for the ranker's name.
        folder: Where scores are stored; None to remember them for this run only.
        order: The order in which chunks are passed on, whatever is asked for; None for that.
    """

    budgeted = True

    def __init__(
        self,
        ranker: Ranker,
        *,
        name: str | None = None,
        folder: Path | None = None,
        order: Order | None = None,
    ) -> None:
        self.name = name or ranker.name
        self.settings: Mapping[str, object] = ranker.settings
        self.ordered = order is None
        self._ranker, self._order = ranker, order
        self._store = ScoreStore(ranker, folder)
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the best chunks within the limit.

        Raises:
            ScoringError: If the ranker fails on the item.
        """
        scored = self.scored(item)
        start = time.perf_counter()
        kept = best_within(
            limit,
            scored.result.scores,
            lambda place: item.chunks[place].rendered,
            order=self._order,
        )
        return Pruned(kept, scored.seconds + time.perf_counter() - start)

    def scored(self, item: Example) -> ScoredItem:
        """Return the item's scores and what they took; stored ones where there are any.

        Raises:
            ScoringError: If the ranker fails on the item.
        """
        key = content_hash(item.query, item.chunks)
        if key not in self._store:
            self._prepare()
            self._store.add(key, self._score(item))
        return self._store[key]

    def _prepare(self) -> None:
        if not self._ready:
            prepare_for_one(self._ranker)
            self._ready = True

    def _score(self, item: Example) -> ScoredItem:
        place = f"{self.name} failed on item {item.id!r} of {item.source}"
        start = time.perf_counter()
        try:
            result = self._ranker.score(item.query, item.chunks)
        except AT2Error as error:
            raise ScoringError(f"{place}: {error}") from error
        seconds = time.perf_counter() - start
        if len(result.scores) != len(item.chunks):
            raise ScoringError(
                f"{place}: {len(result.scores)} scores for {len(item.chunks)} chunks"
            )
        return ScoredItem(result, seconds)


def prepare_for_one(ranker: Ranker) -> None:
    """Load a ranker and leave torch's threads as they are.

    Rankers read many items at a time, with one thread each; here one item is pruned at a time.
    """
    threads = torch.get_num_threads()
    ranker.prepare()
    torch.set_num_threads(threads)


def best_within(
    limit: Limit,
    scores: Sequence[float],
    text_of: Callable[[int], str],
    *,
    order: Order | None = None,
) -> tuple[int, ...]:
    """Return the places of the best chunks that a limit allows, in the order they are passed on.

    Args:
        limit: The limit.
        scores: The chunks' scores.
        text_of: What is passed on of the chunk at a place.
        order: The order, whatever the limit asks for; None for that.
    """
    options = PruneOptions(
        top_k=limit.budget.top_k,
        max_tokens=limit.budget.max_tokens,
        order=order or limit.order,
    )
    return select(
        scores,
        options,
        tokens_of=lambda places: limit.count(DEFAULT_SEPARATOR.join(map(text_of, places))),
    ).kept
