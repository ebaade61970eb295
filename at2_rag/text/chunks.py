"""Chunks as callers pass them, and the normalised view that the scoring model reads.

The caller's own object comes back untouched in `ScoredChunk.chunk`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Real
from typing import Any, Literal, TypeAlias

from at2_rag.errors import ChunkTypeError, InputError, brief
from at2_rag.text.sentences import LINE_BREAK

DEFAULT_SEPARATOR = "\n\n"
DEFAULT_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One retrieved passage.

    Attributes:
        text: The passage, any string; empty and blank ones are scored like others.
        title: Heading shown to the models above the text; None or blank for no heading.
        id: The caller's identifier; never interpreted.
        metadata: Anything else of the caller's; never interpreted.
        retrieval_score: The retriever's score on any scale, larger is better (negate distances);
            None or NaN if unknown. Read with `prior="score"`, and with `prior="cosine"`, for which
            it must be a cosine.
    """

    text: str
    title: str | None = None
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    retrieval_score: float | None = None

    @property
    def rendered(self) -> str:
        """The chunk as models see it: the title on a line by itself, then the text."""
        return f"{self.title}\n{self.text}" if self.title and self.title.strip() else self.text


ChunkLike: TypeAlias = str | Mapping[str, Any] | Chunk

Prior: TypeAlias = Literal["score", "order", "cosine"]
"""How the retriever weighs in: ranks by `retrieval_score`, the chunks' order, or `retrieval_score`
as a cosine of embeddings."""

_TYPES: tuple[tuple[str, Any, str], ...] = (
    ("text", str, "a string"),
    ("title", str | None, "a string or None"),
    ("retrieval_score", Real | None, "a number, larger is better, or None"),
)


def as_chunk(value: ChunkLike, index: int) -> Chunk:
    """Return the normalised view of the caller's chunk; `index` is for the error message."""
    if isinstance(value, str):
        return Chunk(text=value)
    if isinstance(value, Mapping):
        if "text" not in value:
            raise ChunkTypeError(
                f"chunk {index} is a mapping without the key 'text' (its keys: "
                f"{brief(list(value))}); "
                "pass {'text': ..., 'title': ...}"
            )
        chunk_id, metadata = value.get("id"), value.get("metadata")
        value = Chunk(
            text=value["text"],
            title=value.get("title"),
            id=None if chunk_id is None else _id_text(chunk_id, index),
            metadata=metadata if isinstance(metadata, Mapping) else {},
            retrieval_score=value.get("retrieval_score"),
        )
    if not isinstance(value, Chunk):
        raise ChunkTypeError(
            f"chunk {index} is a {type(value).__name__}; pass a string, a mapping with 'text', "
            "or a Chunk"
        )
    for name, kind, wanted in _TYPES:
        attribute = getattr(value, name)
        if isinstance(attribute, bool) or not isinstance(attribute, kind):
            raise ChunkTypeError(
                f"chunk {index} has a {name} of type {type(attribute).__name__} "
                f"({brief(attribute)}); pass {wanted}"
            )
    _check_score(value.retrieval_score, index)
    return value


def _id_text(chunk_id: object, index: int) -> str:
    try:
        return str(chunk_id)
    except Exception as error:  # too many digits, or whatever the caller's class raises
        raise ChunkTypeError(
            f"chunk {index} has an id ({brief(chunk_id)}) that can't be written as text "
            f"({type(error).__name__}: {error}); pass a string"
        ) from error


def _check_score(score: float | None, index: int) -> None:
    try:
        float(0.0 if score is None else score)
    except Exception as error:  # too large, or whatever the caller's class raises
        raise ChunkTypeError(
            f"chunk {index} has the retrieval_score {brief(score)}, which no float holds "
            f"({type(error).__name__}: {error}); scale it to at most 1e308, or pass None"
        ) from error


def checked_chunks(query: str, chunks: Iterable[ChunkLike]) -> tuple[list[Any], list[Chunk]]:
    """Return the caller's objects and their normalised views, of a query that isn't blank."""
    if not isinstance(query, str):
        raise InputError(f"query is a {type(query).__name__}; pass the question as text")
    if not query.strip():
        raise InputError(f"query is blank ({query!r}); pass the question as text")
    objects = list(_iterable(chunks))
    return objects, [as_chunk(chunk, index) for index, chunk in enumerate(objects)]


def chunk_batches(chunks: Iterable[ChunkLike], size: int) -> Iterator[list[Chunk]]:
    """Yield the chunks' normalised views, `size` at a time, reading no further than needed."""
    views = (as_chunk(chunk, index) for index, chunk in enumerate(_iterable(chunks)))
    while batch := list(islice(views, size)):
        yield batch


def _iterable(chunks: Iterable[ChunkLike]) -> Iterable[ChunkLike]:
    if isinstance(chunks, (str, bytes, Mapping)) or not isinstance(chunks, Iterable):
        raise InputError(f"chunks is a {type(chunks).__name__}; pass a list of chunks")
    return chunks


def replace_surrogates(text: str) -> str:
    """Return `text` as tokenizers accept it: surrogate pairs joined, lone ones made U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def join_spans(text: str, spans: Sequence[tuple[int, int]], ellipsis: str) -> str:
    """Return spans of a text verbatim, with the ellipsis between two.

    The ellipsis stands between blanks, or between line breaks if one was left out.
    """
    parts: list[str] = []
    last_end = 0
    for number, (start, end) in enumerate(spans):
        if number:
            space = "\n" if LINE_BREAK.search(text, last_end, start) else " "
            parts.append(f"{space}{ellipsis}{space}" if ellipsis else space)
        parts.append(text[start:end])
        last_end = end
    return "".join(parts)
