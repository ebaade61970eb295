"""at2_rag without a budget: calibrated head weights decide how many chunks are relevant."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.errors import AT2Error, ScoringError
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.options import DEFAULT_AT_LEAST, DEFAULT_MIN_P, PruneOptions
from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache
from at2_rag_evals.items import content_hash
from at2_rag_evals.model_record import model_record
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.rankers.at2 import head_weights_record, load_pruner
from at2_rag_evals.store import Store, settings_key


class AT2AdaptivePruner:
    """`AT2Pruner.prune` without a limit or with `max_missed`; what it keeps is stored."""

    budgeted = False
    ordered = True

    def __init__(
        self,
        name: str,
        options: PruneOptions,
        *,
        model: str | None = None,
        head_weights: str | None = None,
        store: Path | None = None,
    ) -> None:
        self.name, self._options = name, options
        self._model, self._head_weights = model or DEFAULT_MODEL, head_weights
        self.settings: Mapping[str, object] = {
            **model_record(self._model),
            **head_weights_record(head_weights),
            "max_missed": options.max_missed,
            "without_limit": [DEFAULT_MIN_P, DEFAULT_AT_LEAST],
            "multi_hop": options.multi_hop,
        }
        self._store = Store(store, settings_key(self), Pruned)

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the relevant chunks of an item; of the limit only the order counts.

        Raises:
            ScoringError: If the pruner fails on the item.
        """
        key = f"{content_hash(item.query, item.chunks)} {limit.order}"
        pruned = self._store.get(key)
        if pruned is None:
            pruner = self._pruner  # loaded before the clock starts
            start = time.perf_counter()
            try:
                result = pruner.prune(item.query, item.chunks, order=limit.order)
            except AT2Error as error:
                raise ScoringError(
                    f"{self.name} failed on item {item.id!r} of {item.source}: {error}"
                ) from error
            kept = tuple(chunk.index for chunk in result.kept)
            pruned = self._store[key] = Pruned(kept, time.perf_counter() - start)
        return pruned

    @cached_property
    def _pruner(self) -> AT2Pruner:
        # Keeps nothing, since a call's time would depend on those before.
        nothing = ChunkCache(max_memory_bytes=0)
        return load_pruner(
            self._model, self._head_weights, options=self._options, chunk_cache=nothing
        )
