"""The mean of all attention heads: what learning head weights has to beat."""

from __future__ import annotations

from at2_rag_evals.rankers.at2 import AT2Ranker


class AllHeadsMeanRanker(AT2Ranker):
    """The same scoring model with one weight for every head of every layer.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        remember: As of `AT2Ranker`.
    """

    name = "all_heads_mean"

    def __init__(self, model: str | None = None, *, remember: bool = True) -> None:
        super().__init__(model, head_weights="uniform", remember=remember)
