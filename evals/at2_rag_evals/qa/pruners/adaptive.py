"""at2_rag without a budget: calibrated head weights decide how many chunks are relevant."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.errors import AT2Error, ScoringError
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.qa.pruners.ranking import prepare_for_one
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.store import Store, settings_key

ADAPTIVE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "at2_adaptive": {"multi_hop": None},
        "at2_adaptive_multi_hop": {"multi_hop": True},
        "at2_adaptive_once": {"multi_hop": False},
    }
)
"""Name -> options of `AT2Pruner.prune`."""


class AT2AdaptivePruner(AT2Ranker):
    """`AT2Pruner.prune` with no limit but `max_missed`; what it keeps is stored as it is chosen.

    Args:
        name: What the report calls the pruner.
        options: What differs from the options that `AT2Pruner` has by default.
        model: As of `AT2Ranker`, like what is raised.
        head_weights: As of `AT2Ranker`; they have to be calibrated.
        store: The file of stored results; None to remember them for this run only.
    """

    budgeted = False
    ordered = True

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        *,
        model: str | None = None,
        head_weights: str | None = None,
        store: Path | None = None,
    ) -> None:
        super().__init__(model, head_weights=head_weights, remember=False)
        self.name = name
        self._options = dict(options)
        self.settings = {**self.settings, **options}
        self._store = Store(store, settings_key(self), Pruned)
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the relevant chunks of an item; of the limit only the order counts.

        Raises:
            ScoringError: If the pruner fails on the item.
        """
        key = f"{content_hash(item.query, item.chunks)} {limit.order}"
        pruned = self._store.get(key)
        if pruned is None:
            if not self._ready:
                prepare_for_one(self)
                self._ready = True
            pruned = self._store[key] = self._prune(item, limit)
        return pruned

    def _prune(self, item: Example, limit: Limit) -> Pruned:
        start = time.perf_counter()
        try:
            result = self._pruner.prune(
                item.query, item.chunks, order=limit.order, **self._options
            )
        except AT2Error as error:
            raise ScoringError(
                f"{self.name} failed on item {item.id!r} of {item.source}: {error}"
            ) from error
        kept = tuple(chunk.index for chunk in result.kept)
        return Pruned(kept, time.perf_counter() - start)
