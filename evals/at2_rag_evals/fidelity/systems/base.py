"""What a system has to offer to be judged for fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.rankers.base import ItemScores, Ranker


class FidelitySystem(Protocol):
    """A system that scores sources by their effect on an answer.

    Unlike a ranker it may read the answer, ablate sources, or look at labels.

    Attributes:
        name: What the report calls the system.
        settings: Everything that decides the scores besides item and answer, as JSON-ready values.
        scale: What the scores are, see `Scale`.
        shares_are_softmax: Whether the system itself means the softmax over an item's scores.
    """

    name: str
    settings: Mapping[str, object] = MappingProxyType({})
    scale: Scale = "additive"
    shares_are_softmax: bool = False

    def prepare(self) -> None:
        """Load what scoring needs; called once, before the first item that has to be scored."""
        return None

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score an item's sources, in their order.

        A system whose readings may have been stored before says in `seconds` what they took then;
        that of any other is measured.
        """
        ...


class RankerSystem(FidelitySystem):
    """A ranker, which sees the question and each source as a text by itself.

    Args:
        ranker: The ranker.
    """

    scale = "logit"

    def __init__(self, ranker: Ranker) -> None:
        self.name, self.settings, self._ranker = ranker.name, ranker.settings, ranker

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources as the ranker does chunks."""
        return self._ranker.score(item.query, item.sources_as_chunks)
