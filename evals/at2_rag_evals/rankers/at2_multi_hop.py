"""at2_rag asking again beside the best chunk."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.text.chunks import Chunk
from at2_rag_evals.model_record import model_record
from at2_rag_evals.rankers.at2 import SCORING_MODULES, AT2Ranker
from at2_rag_evals.rankers.base import ItemScores


class AT2MultiHopRanker(AT2Ranker):
    """The same pruner with `multi_hop=True`.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        head_weights: As of `AT2Ranker`; they have to have multi-hop weights.
        remember: As of `AT2Ranker`.
    """

    name = "at2_multi_hop"

    def __init__(
        self, model: str | None = None, *, head_weights: str | None = None, remember: bool = True
    ) -> None:
        super().__init__(model, head_weights=head_weights, remember=remember)
        modules = (*SCORING_MODULES, "multi_hop", "selection")
        self.settings = {**self.settings, **model_record(self._model, modules)}

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        return self._scores_of_pruning(query, chunks, multi_hop=True)
