"""at2_rag in joint reading: all chunks in one prompt, as in the paper."""

from __future__ import annotations

from at2_rag_evals.rankers.at2 import AT2Ranker


class AT2JointRanker(AT2Ranker):
    """The same scoring model, which reads all chunks in one prompt; its own shipped head weights.

    Args:
        model: The scoring model, a known name, a folder or a hub id; None for the default model.
        remember: As of `AT2Ranker`.
    """

    name = "at2_joint"

    def __init__(self, model: str | None = None, *, remember: bool = True) -> None:
        super().__init__(model, reading="joint", remember=remember)
