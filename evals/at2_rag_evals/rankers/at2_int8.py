"""at2_rag over chunk states that were kept in eight bits."""

from __future__ import annotations

from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.states.store import ChunkCache
from at2_rag_evals.model_record import model_record
from at2_rag_evals.rankers.at2 import SCORING_MODULES, AT2Ranker


class AT2Int8Ranker(AT2Ranker):
    """The same pruner with a store in eight bits.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        head_weights: As of `AT2Ranker`.
        remember: As of `AT2Ranker`; states are kept in either case, for this is about them.
    """

    name = "at2_int8"

    def __init__(
        self, model: str | None = None, *, head_weights: str | None = None, remember: bool = True
    ) -> None:
        super().__init__(model, head_weights=head_weights, remember=remember)
        modules = (*SCORING_MODULES, "int8_states", "state_store")
        self.settings = {**self.settings, **model_record(self._model, modules), "states": "int8"}

    def _states(self) -> ChunkStateStore:
        return ChunkCache(precision="int8")
