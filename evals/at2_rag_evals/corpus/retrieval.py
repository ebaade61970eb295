"""What retrievers bring for a question from all chunks of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.text.chunks import Chunk
from at2_rag_evals.corpus.request import CorpusRequest
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker, default_is_installed
from at2_rag_evals.rankers.rank_fusion import fused_ranks

_EMBEDDED_AT_ONCE = 32

Retriever: TypeAlias = Callable[[str], npt.NDArray[np.float64]]
"""Returns a score for each chunk of the corpus, [chunks]; -inf for one that doesn't match."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The chunks retrieved for a question, by index.

    Attributes:
        merged: What any retriever brings, in the order of reciprocal rank fusion.
        by_retriever: What each brings, best first.
    """

    merged: tuple[int, ...]
    by_retriever: Mapping[str, tuple[int, ...]]


def uses_minilm(request: CorpusRequest) -> bool:
    """Return whether MiniLM, or the model in its place, is there to retrieve and be judged."""
    return request.embedding_model is not None or default_is_installed()


def make_retrievers(
    request: CorpusRequest,
    chunks: Sequence[Chunk],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Retriever]:
    """Index the chunks for each retriever; `progress` is called with chunks embedded and in all."""
    score = BM25Ranker().index(chunks)

    def by_words(query: str) -> npt.NDArray[np.float64]:
        scores = np.asarray(score(query), dtype=np.float64)
        return np.where(scores > 0, scores, -np.inf)

    if not uses_minilm(request):
        return {"bm25": by_words}
    ranker = EmbeddingRanker(request.embedding_model, batch_size=_EMBEDDED_AT_ONCE)
    ranker.prepare()
    blocks = []
    progress(0, len(chunks))
    for start in range(0, len(chunks), _EMBEDDED_AT_ONCE):
        block = chunks[start : start + _EMBEDDED_AT_ONCE]
        blocks.append(ranker.embed([chunk.rendered for chunk in block]))
        progress(start + len(block), len(chunks))
    embeddings = np.concatenate(blocks).astype(np.float64)
    return {
        "bm25": by_words,
        "minilm": lambda query: embeddings @ ranker.embed([query], queries=True)[0],
    }


def retrieve(query: str, retrievers: Mapping[str, Retriever], count: int) -> Retrieved:
    """Return the best `count` chunks of each retriever; ties stay in the corpus's order."""
    scores = {name: score(query) for name, score in retrievers.items()}
    best = {
        name: tuple(
            index
            for index in np.argsort(-each, kind="stable")[:count].tolist()
            if np.isfinite(each[index])
        )
        for name, each in scores.items()
    }
    fused = fused_ranks(list(scores.values()))
    merged = sorted({index for indices in best.values() for index in indices})
    return Retrieved(tuple(sorted(merged, key=lambda index: -fused[index])), best)
