"""Reciprocal rank fusion of BM25 and MiniLM, the usual hybrid of word and embedding search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from at2_rag.text.chunks import Chunk
from at2_rag_evals.extras import import_extra
from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker

_K = 60


def fused_ranks(rankings: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return for each text the sum of 1 / (60 + its rank) over several systems' scores, [texts].

    Ties share their mean rank.
    """
    ranks = import_extra("scipy.stats").rankdata(-np.asarray(rankings, dtype=np.float64), axis=1)
    fused: npt.NDArray[np.float64] = (1 / (_K + ranks)).sum(axis=0)
    return fused


class RankFusionRanker(Ranker):
    """Adds 1 / (60 + rank) of both rankings; ties share their mean rank.

    G. Cormack, C. Clarke and S. Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009. Arguments and errors as of `EmbeddingRanker`.
    """

    name = "bm25_minilm"

    def __init__(self, embedding_model: str | None = None, *, remember: bool = True) -> None:
        import_extra("scipy.stats")
        self._words = BM25Ranker()
        self._embeddings = EmbeddingRanker(embedding_model, remember=remember)
        self.settings = {
            "k": _K,
            "bm25": self._words.settings,
            "minilm": self._embeddings.settings,
        }

    def prepare(self) -> None:
        """Load the embedding model."""
        self._embeddings.prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its ranks."""
        words = self._words.score(query, chunks)
        embeddings = self._embeddings.score(query, chunks)
        fused = fused_ranks([words.scores, embeddings.scores])
        return ItemScores(tuple(fused.tolist()), truncated=embeddings.truncated)
