"""Other head weights than those of `at2`, under a name of their own."""

from __future__ import annotations

from at2_rag_evals.named_weights import NamedWeights
from at2_rag_evals.rankers.at2 import AT2Ranker


class NamedWeightsRanker(AT2Ranker):
    """The pruner with given head weights, in the reading they are for.

    Args:
        weights: The name and the head weights.
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        remember: As of `AT2Ranker`.
    """

    def __init__(
        self, weights: NamedWeights, *, model: str | None = None, remember: bool = True
    ) -> None:
        super().__init__(model, head_weights=weights.head_weights, remember=remember)
        self.name = weights.name
