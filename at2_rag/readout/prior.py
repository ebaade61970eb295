"""The retriever's opinion of the chunks, as a prior to their scores.

Retrievers' scores have no scale in common: BM25, distances turned around, fused ranks. What all
have is an order, so a chunk's *prior term* is its reciprocal rank (from 1; equal scores share their
mean rank). Cosines of embeddings have a scale, and say by how much one chunk is nearer than
another: the term is the cosine itself then. Either is taken less its mean over the call's chunks
that have one. A score becomes `score + weight * term`, the weight of each kind learned where the
head weights are calibrated. A chunk of which the retriever said nothing has the term 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk, Prior

_ROUNDING = 0.01
"""How far beyond 1 a cosine may be that was computed in few bits."""


def prior_terms(chunks: Sequence[Chunk], prior: Prior) -> npt.NDArray[np.float64] | None:
    """Return each chunk's prior term, [S] float64; None if nothing is known of any.

    Args:
        chunks: The chunks in the retriever's order.
        prior: "score" to rank them by `Chunk.retrieval_score`, larger first, "order" to take them
            as they stand, best first, "cosine" to take `Chunk.retrieval_score` as it is.

    Raises:
        InputError: If a retrieval score that is to be a cosine isn't within -1 and 1.
    """
    if prior == "order":
        scores = -np.arange(len(chunks), dtype=np.float64)
    else:
        # None becomes NaN.
        scores = np.array([chunk.retrieval_score for chunk in chunks], dtype=np.float64)
    known = ~np.isnan(scores)
    if not known.any():
        return None
    values = scores[known]
    if prior == "cosine":
        _check_cosines(scores)
    else:
        _, groups, counts = np.unique(-values, return_inverse=True, return_counts=True)
        values = 1 / (np.cumsum(counts) - (counts - 1) / 2)[groups]
    terms = np.zeros(len(chunks))
    terms[known] = values - values.mean()
    return terms


def _check_cosines(scores: npt.NDArray[np.float64]) -> None:
    beyond = np.flatnonzero(np.abs(scores) > 1 + _ROUNDING)  # NaN isn't
    if beyond.size:
        first = int(beyond[0])
        raise InputError(
            f"the retrieval_score of chunk {first} is {scores[first]}, with prior='cosine' it has "
            "to be within -1 and 1; pass cosines, or prior='score', which reads nothing but ranks"
        )
