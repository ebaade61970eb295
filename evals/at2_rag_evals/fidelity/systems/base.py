"""What a system has to offer to be judged for fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.rankers.base import ItemScores


class FidelitySystem(Protocol):
    """A system that scores sources by their effect on an answer.

    Unlike a ranker it may read the answer, ablate sources, or look at labels. Name and settings as
    of `Ranker`.

    Attributes:
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

        The scores come with their `seconds` where readings may have been stored before.
        """
        ...


class GoldSystem(FidelitySystem):
    """Scores 1 for a gold source and 0 for any other: how far labels explain the answer."""

    name = "gold"

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the labels."""
        return ItemScores(tuple(map(float, item.labels)), seconds=0.0)
