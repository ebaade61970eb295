"""What a system has to offer to be judged for fidelity."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from at2_rag.training.examples import Example
from at2_rag_evals.rankers.base import ChunkScores, Ranker


@dataclass(frozen=True, slots=True)
class ItemScores:
    """A system's scores of one item's chunks.

    Attributes:
        result: The scores.
        seconds: What a new item costs, its answer at hand and models loaded; readings that were
            stored before count with what they took.
    """

    result: ChunkScores
    seconds: float


class FidelitySystem(Protocol):
    """A system that scores chunks by what they matter to an answer.

    Unlike a ranker it may read the answer, ablate chunks, or look at labels.
    """

    @property
    def name(self) -> str:
        """What the report calls the system."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides the scores besides item and answer, as JSON-ready values."""
        ...

    def prepare(self) -> None:
        """Load what scoring needs; called once, before the first item, if there is one to score."""
        ...

    def scores(self, item: Example, answer: str) -> ItemScores:
        """Score an item's chunks, in input order."""
        ...


class RankerSystem:
    """A ranker, which sees question and chunks only.

    Args:
        ranker: The ranker.
    """

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self.name = ranker.name
        self.settings = ranker.settings

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: Example, answer: str) -> ItemScores:
        """Score the chunks as the ranker does."""
        start = time.perf_counter()
        result = self._ranker.score(item.query, item.chunks)
        return ItemScores(result, time.perf_counter() - start)
