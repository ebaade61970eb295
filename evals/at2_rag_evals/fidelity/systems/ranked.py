"""Rankers as systems: they see the question, but not the answer."""

from __future__ import annotations

from at2_rag.readout.head_weights import UNIFORM
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.rankers.base import ItemScores, Ranker


class RankerSystem(FidelitySystem):
    """A ranker of texts, which sees each source by itself."""

    scale = "logit"

    def __init__(self, ranker: Ranker) -> None:
        self.name, self.settings, self._ranker = ranker.name, ranker.settings, ranker

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources as the ranker does chunks."""
        return self._ranker.score(item.example.query, item.sources_as_chunks)


class QuestionAttentionSystem(FidelitySystem):
    """A form of at2, which scores chunks, or sentences within their chunks."""

    def __init__(self, ranker: AT2Ranker) -> None:
        self.name, self.settings, self._ranker = ranker.name, ranker.settings, ranker
        self.shares_are_softmax = ranker.scores_are_logits
        self.scale = "logit" if ranker.scores_are_logits else "additive"
        if ranker.settings["head_weights"] == UNIFORM:
            self.scale = "mass"

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources by the question's attention."""
        sentences = item.unit == "sentence"
        score = self._ranker.score_sentences if sentences else self._ranker.score
        return score(item.example.query, item.example.chunks)
