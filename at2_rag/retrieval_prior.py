"""What the retriever held of the chunks, as a prior to their scores.

Retrievers' scores have no scale in common: cosines, BM25, distances turned around. What all have
is an order, so a chunk's *prior term* is its reciprocal rank (from 1; equal scores share their mean
rank), less the mean over the call's ranked chunks. A score becomes `score + weight * term`, the
weight learned where the head weights are calibrated. A chunk of unknown rank has the term 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from at2_rag.chunks import Chunk, Prior


def prior_terms(chunks: Sequence[Chunk], prior: Prior) -> npt.NDArray[np.float64] | None:
    """Return each chunk's prior term, [S] float64; None if no rank is known.

    Args:
        chunks: The chunks in the retriever's order.
        prior: "score" to rank them by `Chunk.retrieval_score`, larger first, or "order" to take
            them as they stand, best first.
    """
    if prior == "order":
        scores = -np.arange(len(chunks), dtype=np.float64)
    else:
        scores = np.array([_score(chunk) for chunk in chunks], dtype=np.float64)
    known = ~np.isnan(scores)
    if not known.any():
        return None
    _, places, counts = np.unique(-scores[known], return_inverse=True, return_counts=True)
    reciprocal = 1 / (np.cumsum(counts) - (counts - 1) / 2)[places]
    terms = np.zeros(len(chunks))
    terms[known] = reciprocal - reciprocal.mean()
    return terms


def _score(chunk: Chunk) -> float:
    return math.nan if chunk.retrieval_score is None else float(chunk.retrieval_score)
