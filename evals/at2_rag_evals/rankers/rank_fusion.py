"""Reciprocal rank fusion of BM25 and MiniLM, the usual hybrid of word and embedding search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from at2_rag.text.chunks import Chunk
from at2_rag_evals.extras import import_extra
from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.minilm import MiniLMRanker

_K = 60


class RankFusionRanker(Ranker):
    """Adds 1 / (60 + rank) of both rankings; ties share their mean rank.

    G. Cormack, C. Clarke and S. Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009. Arguments and errors as of `MiniLMRanker`.
    """

    name = "bm25_minilm"

    def __init__(self, embedding_model: str | None = None, *, remember: bool = True) -> None:
        self._rankdata = import_extra("scipy.stats").rankdata
        self._words = BM25Ranker()
        self._embeddings = MiniLMRanker(embedding_model, remember=remember)
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
        fused = self._parts(words.scores) + self._parts(embeddings.scores)
        return ItemScores(tuple(fused.tolist()), truncated=embeddings.truncated)

    def _parts(self, scores: Sequence[float]) -> npt.NDArray[np.float64]:
        ranks: npt.NDArray[np.float64] = self._rankdata(-np.asarray(scores, dtype=np.float64))
        return 1 / (_K + ranks)
