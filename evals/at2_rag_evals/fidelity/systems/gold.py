"""The gold indicator: how far evidence labels explain the model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from at2_rag.training.examples import Example
from at2_rag_evals.fidelity.systems.base import ItemScores
from at2_rag_evals.rankers.base import ChunkScores


class GoldSystem:
    """Scores 1 for a gold chunk and 0 for any other."""

    name = "gold"
    settings: Mapping[str, object] = MappingProxyType({})

    def prepare(self) -> None:
        """Do nothing; there is nothing to load."""

    def scores(self, item: Example, answer: str) -> ItemScores:
        """Return the labels."""
        return ItemScores(ChunkScores(tuple(map(float, item.labels))), 0.0)
