"""The gold indicator: how far evidence labels explain the model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import ItemScores
from at2_rag_evals.rankers.base import ChunkScores


class GoldSystem:
    """Scores 1 for a gold source and 0 for any other."""

    name = "gold"
    scale: Scale = "additive"
    shares_are_softmax = False
    settings: Mapping[str, object] = MappingProxyType({})

    def prepare(self) -> None:
        """Do nothing; there is nothing to load."""

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the labels."""
        return ItemScores(ChunkScores(tuple(map(float, item.labels))), 0.0)
