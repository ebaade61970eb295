"""Leave-one-out: a source's score is what removing it alone costs the answer."""

from __future__ import annotations

from collections.abc import Mapping

from at2_rag.training.answering.ablation import leave_one_out
from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import ItemScores
from at2_rag_evals.rankers.base import ChunkScores


class LeaveOneOutSystem:
    """Reads the answer with all sources and without each; S + 1 readings.

    The score is the fall of the answer's logit-probability, by removal, as the baseline of that
    name in B. Cohen-Wang et al., "ContextCite: Attributing Model Generation to Context", NeurIPS
    2024, section 4.

    Args:
        reader: Reads with chunks removed.
    """

    name = "leave_one_out"
    scale: Scale = "additive"
    shares_are_softmax = False

    def __init__(self, reader: RemovalReader) -> None:
        self._reader = reader
        self.settings: Mapping[str, object] = reader.settings

    def prepare(self) -> None:
        """Do nothing; the reader loads its model when it has to."""

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Return the drops."""
        full, *others = self._reader.read(item, answer, leave_one_out(len(item.sources)))
        falls = tuple(full.logit_probability - other.logit_probability for other in others)
        seconds = full.seconds + sum(other.seconds for other in others)
        return ItemScores(ChunkScores(falls), seconds)
