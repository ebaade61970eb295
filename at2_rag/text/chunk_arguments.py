"""Chunks as callers pass them: checked, taken in, and given back with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk, ChunkLike, ScoredChunk, as_chunk


def checked_chunks(query: str, chunks: Iterable[ChunkLike]) -> tuple[list[Any], list[Chunk]]:
    """Return the caller's objects and their normalised views; check the arguments' kinds."""
    if not isinstance(query, str):
        raise InputError(f"query is a {type(query).__name__}; pass the question as text")
    if not query.strip():
        raise InputError(f"query is blank ({query!r}); pass the question as text")
    given = list(_iterable(chunks))
    return given, [as_chunk(chunk, index) for index, chunk in enumerate(given)]


def _iterable(chunks: Iterable[ChunkLike]) -> Iterable[ChunkLike]:
    if isinstance(chunks, (str, bytes, Mapping)) or not isinstance(chunks, Iterable):
        raise InputError(f"chunks is a {type(chunks).__name__}; pass a list of chunks")
    return chunks


def chunk_batches(chunks: Iterable[ChunkLike], size: int) -> Iterator[list[Chunk]]:
    """Return chunks so many at a time, taken in as they are needed.

    Raises:
        InputError: If it isn't an iterable of chunks; on the way, if one isn't a chunk.
    """
    views = (as_chunk(chunk, index) for index, chunk in enumerate(_iterable(chunks)))
    while batch := list(islice(views, size)):
        yield batch


def scored_chunks(
    given: Sequence[Any],
    views: Sequence[Chunk],
    scores: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float64] | None = None,
) -> tuple[ScoredChunk, ...]:
    """Return the caller's objects with their scores [S], and probabilities [S] if there are any."""
    likely = [None] * len(given) if probabilities is None else probabilities.tolist()
    return tuple(
        ScoredChunk(
            chunk=chunk,
            score=float(score),
            index=index,
            text=view.text,
            title=view.title,
            probability=probability,
        )
        for index, (chunk, view, score, probability) in enumerate(
            zip(given, views, scores, likely, strict=True)
        )
    )
