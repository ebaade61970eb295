"""Rankers as systems: they see the question, but not the answer."""

from __future__ import annotations

from at2_rag.readout.head_weights import UNIFORM
from at2_rag_evals.fidelity.measures.tempered_shares import Scale
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers.at2 import AT2Ranker
from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.query_heads import QueryHeadsRanker


class RankerSystem(FidelitySystem):
    """A ranker of texts, which sees each source by itself."""

    scale: Scale = "logit"

    def __init__(self, ranker: Ranker) -> None:
        self.name, self.settings = ranker.name, ranker.settings
        self._ranker = ranker

    def prepare(self) -> None:
        """Load the ranker."""
        self._ranker.prepare()

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources as the ranker does chunks."""
        return self._ranker.score(item.example.query, item.sources_as_chunks)


class QuestionAttentionSystem(RankerSystem):
    """A ranker by attention, which scores chunks, or sentences within their chunks."""

    _ranker: AT2Ranker | QueryHeadsRanker

    def __init__(self, ranker: AT2Ranker | QueryHeadsRanker) -> None:
        super().__init__(ranker)
        if isinstance(ranker, QueryHeadsRanker) or ranker.settings["head_weights"] == UNIFORM:
            self.scale = "mass"
        else:
            self.shares_are_softmax = ranker.scores_are_logits
            self.scale = "logit" if ranker.scores_are_logits else "additive"

    def scores(self, item: SourcedItem, answer: str) -> ItemScores:
        """Score the sources by the question's attention."""
        sentences = item.unit == "sentence"
        score = self._ranker.score_sentences if sentences else self._ranker.score
        return score(item.example.query, item.example.chunks)
