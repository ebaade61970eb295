"""at2_rag without a budget: what calibrated head weights hold to matter is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.errors import AT2Error, ScoringError
from at2_rag_evals.items import content_hash
from at2_rag_evals.model_record import model_record
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.qa.pruners.ranking import prepare_for_one
from at2_rag_evals.rankers.at2 import SCORING_MODULES, AT2Ranker
from at2_rag_evals.record_store import RecordStore

_CHOOSING_MODULES = (
    "calibration",
    "multi_hop",
    "limits",
    "redundancy",
    "retrieval_prior",
    "selection",
)


class AT2AdaptivePruner(AT2Ranker):
    """`AT2Pruner.prune` with no limit, or a max_missed alone.

    What is kept is stored as it is chosen.

    Args:
        model: As of `AT2Ranker`, like what is raised.
        head_weights: As of `AT2Ranker`; they have to be calibrated.
        name: What the report calls the pruner.
        max_missed: The pruner's; None for its default.
        multi_hop: Whether the question is asked again beside the best chunk; None where the
            best alone doesn't meet the max_missed.
        folder: Where it is stored what is kept; None to remember for this run only.
    """

    budgeted = False
    ordered = True

    def __init__(
        self,
        model: str | None = None,
        *,
        head_weights: str | None = None,
        name: str = "at2_adaptive",
        max_missed: float | None = None,
        multi_hop: bool | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(model, head_weights=head_weights, remember=False)
        self.name = name
        self._tolerance, self._multi_hop = max_missed, multi_hop
        modules = (*SCORING_MODULES, *_CHOOSING_MODULES)
        self.settings = {
            **self.settings,
            **model_record(self._model, modules),
            "max_missed": max_missed,
            "multi_hop": multi_hop,
        }
        self._store: RecordStore[Pruned] = RecordStore(
            self, folder, to_record=_to_record, from_record=_from_record
        )
        self._ready = False

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep what matters of an item; of the limit only the order counts.

        Raises:
            ScoringError: If the pruner fails on the item.
        """
        key = f"{content_hash(item.query, item.chunks)} {limit.order}"
        if key not in self._store:
            if not self._ready:
                prepare_for_one(self)
                self._ready = True
            self._store.add(key, self._prune(item, limit))
        return self._store[key]

    def _prune(self, item: Example, limit: Limit) -> Pruned:
        start = time.perf_counter()
        try:
            result = self._pruner.prune(
                item.query,
                item.chunks,
                max_missed=self._tolerance,
                order=limit.order,
                multi_hop=self._multi_hop,
            )
        except AT2Error as error:
            raise ScoringError(
                f"{self.name} failed on item {item.id!r} of {item.source}: {error}"
            ) from error
        kept = tuple(own.index for own in result.kept)
        return Pruned(kept, time.perf_counter() - start)


def _to_record(key: str, pruned: Pruned) -> Mapping[str, object]:
    return {"item": key, "kept": list(pruned.kept), "seconds": pruned.seconds}


def _from_record(record: Any) -> tuple[str, Pruned]:
    kept = tuple(int(place) for place in record["kept"])
    return str(record["item"]), Pruned(kept, float(record["seconds"]))
