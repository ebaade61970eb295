"""What a system has to offer to be judged for fidelity."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.rankers.base import ChunkScores, Ranker


@dataclass(frozen=True, slots=True)
class ItemScores:
    """A system's scores of one item's sources.

    Attributes:
        result: The scores.
        seconds: What a new item costs, its answer at hand and models loaded; readings that were
            stored before count with what they took.
    """

    result: ChunkScores
    seconds: float


class FidelitySystem(Protocol):
    """A system that scores sources by what they matter to an answer.

    Unlike a ranker it may read the answer, ablate sources, or look at labels.
    """

    @property
    def name(self) -> str:
        """What the report calls the system."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """All that decides the scores besides item and answer, as JSON-ready values."""
        ...

    @property
    def scale(self) -> Scale:
        """What the scores are, see `Scale`."""
        ...

    @property
    def shares_are_softmax(self) -> bool:
        """Whether the system itself means the softmax over an item's scores."""
        ...

    def prepare(self) -> None:
        """Load what scoring needs; called once, before the first item, if there is one to score."""
        ...

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score an item's sources, in their order."""
        ...


class RankerSystem:
    """A ranker, which sees the question and each source as a text of its own.

    Args:
        ranker: The ranker.
    """

    scale: Scale = "logit"
    shares_are_softmax = False

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self.name = ranker.name
        self.settings = ranker.settings

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources as the ranker does chunks."""
        start = time.perf_counter()
        result = self._ranker.score(item.query, item.documents)
        return ItemScores(result, time.perf_counter() - start)
