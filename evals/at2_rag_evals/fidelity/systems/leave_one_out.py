"""Leave-one-out: a source's score is how far the answer falls when it alone is removed."""

from __future__ import annotations

from at2_rag.training.answering.ablation import leave_one_out
from at2_rag_evals.fidelity.removal import RemovalReader, total_seconds
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.base import ItemScores


class LeaveOneOutSystem(FidelitySystem):
    """Reads the answer with all sources and without each; S + 1 readings.

    The score is the fall of the answer's logit-probability, by removal, as the baseline of that
    name in B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS
    2024, section 4.

    Args:
        reader: Reads with sources removed.
    """

    name = "leave_one_out"

    def __init__(self, reader: RemovalReader) -> None:
        self.settings, self._reader = reader.settings, reader

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return how far the answer falls without each source."""
        readings = self._reader.read(item, answer, leave_one_out(len(item.sources)))
        full, *others = (reading.logit_probability for reading in readings)
        falls = tuple(full - other for other in others)
        return ItemScores(falls, seconds=total_seconds(readings))
