"""The gold indicator: how far evidence labels explain the model's answer."""

from __future__ import annotations

from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.base import ItemScores


class GoldSystem(FidelitySystem):
    """Scores 1 for a gold source and 0 for any other."""

    name = "gold"

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the labels."""
        return ItemScores(tuple(map(float, item.labels)), seconds=0.0)
