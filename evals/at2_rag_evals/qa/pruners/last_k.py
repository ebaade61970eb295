"""The last chunks of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers.base import ChunkScores


class LastKRanker:
    """Ranks the chunks from the last to the first."""

    name = "last_k"
    workers = 1
    settings: Mapping[str, object] = MappingProxyType({})

    def prepare(self) -> None:
        """Do nothing; there is nothing to load."""

    def score(self, query: str, chunks: Sequence[Chunk]) -> ChunkScores:
        """Score each chunk by its place, the last highest."""
        return ChunkScores(tuple(map(float, range(len(chunks)))))
