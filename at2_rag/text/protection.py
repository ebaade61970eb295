"""Parts of the chunks' texts that must not be dropped: `protect` of `PruneOptions`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TypeAlias

from at2_rag.errors import InputError
from at2_rag.text.chunks import Chunk

Span = tuple[int, int]
Protect: TypeAlias = str | re.Pattern[str] | Mapping[int, Iterable[Span]]


def protected_spans(chunks: Sequence[Chunk], protect: Protect | None) -> list[list[Span]]:
    """Return the protected ranges of each chunk's text, ascending and without overlaps.

    Args:
        chunks: The chunks.
        protect: A regular expression, whose matches are protected; or ranges of characters by
            chunk index.

    Raises:
        InputError: If it is neither, the expression is invalid, or a range isn't in its text.
    """
    protected: list[list[Span]] = [[] for _ in chunks]
    if protect is None:
        return protected
    if isinstance(protect, Mapping):
        for index, spans in protect.items():
            if not _is_integer(index) or not 0 <= index < len(chunks):
                raise InputError(
                    f"protect has the key {index!r}; pass an index of the {len(chunks)} chunks, "
                    "from 0"
                )
            if not isinstance(spans, Iterable):
                raise InputError(
                    f"protect has {spans!r} for chunk {index}; pass a list of (start, end)"
                )
            ordered = sorted(_checked(span, index, chunks[index].text) for span in spans)
            protected[index] = _joined(ordered)
        return protected
    pattern = pattern_of(protect)
    for spans, chunk in zip(protected, chunks, strict=True):
        spans += [match.span() for match in pattern.finditer(chunk.text) if match[0]]
    return protected


def pattern_of(protect: object) -> re.Pattern[str]:
    """Return a compiled regular expression, or compile its text.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(protect, re.Pattern) and isinstance(protect.pattern, str):
        return protect
    if not isinstance(protect, str):
        raise InputError(
            f"protect is a {type(protect).__name__}; pass a regular expression over text, or a "
            "mapping from chunk indices to ranges of characters"
        )
    try:
        return re.compile(protect)
    except re.error as error:
        raise InputError(
            f"protect is no regular expression: {protect!r} ({error}); re.escape() makes one that "
            "matches a text verbatim"
        ) from error


def _checked(span: object, index: int, text: str) -> Span:
    pair = tuple(span) if isinstance(span, Iterable) else ()
    if len(pair) == 2 and all(map(_is_integer, pair)):
        start, end = map(int, pair)
        if 0 <= start < end <= len(text):
            return start, end
    raise InputError(
        f"protect has the range {span!r} for chunk {index}, whose text has {len(text)} "
        f"characters; pass (start, end) with 0 <= start < end <= {len(text)}"
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return ascending ranges with overlapping ones merged."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            first, last = joined.pop()
            start, end = first, max(last, end)
        joined.append((start, end))
    return joined
