"""at2_rag with what a retriever holds of the chunks as a prior: MiniLM's ranks, or its cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from at2_rag.text.chunks import Chunk, Prior
from at2_rag_evals.model_record import model_record
from at2_rag_evals.rankers.at2 import SCORING_MODULES, AT2Ranker
from at2_rag_evals.rankers.base import ItemScores
from at2_rag_evals.rankers.minilm import MiniLMRanker


class AT2PriorRanker(AT2Ranker):
    """The same pruner told what MiniLM, in a retriever's place, holds of each chunk.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        head_weights: As of `AT2Ranker`; they have to have learned a weight for the prior.
        embedding_model: As of `MiniLMRanker`, like what is raised.
        name: What the report calls the ranker.
        prior: "score" for MiniLM's ranks, "cosine" for its cosines.
        remember: As of both.
    """

    workers = 1

    def __init__(
        self,
        model: str | None = None,
        *,
        head_weights: str | None = None,
        embedding_model: str | None = None,
        name: str = "at2_prior",
        prior: Prior = "score",
        remember: bool = True,
    ) -> None:
        super().__init__(model, head_weights=head_weights, remember=remember)
        self._retriever = MiniLMRanker(embedding_model, remember=remember)
        self.name, self._prior = name, prior
        modules = (*SCORING_MODULES, "retrieval_prior", "selection")
        self.settings = {
            **self.settings,
            "prior": prior,
            **model_record(self._model, modules),
            "minilm": self._retriever.settings,
        }

    def prepare(self) -> None:
        """Load both models; see `AT2Ranker`."""
        self._retriever.prepare()
        super().prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        known = self._retriever.score(query, chunks)
        given = [
            replace(chunk, retrieval_score=score)
            for chunk, score in zip(chunks, known.scores, strict=True)
        ]
        return self._scores_of_pruning(query, given, prior=self._prior)
