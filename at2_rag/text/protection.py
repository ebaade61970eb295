"""Parts of the chunks' texts that must not be dropped: `protect` of `PruneOptions`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import TypeAlias

from at2_rag.errors import InputError, brief
from at2_rag.text.chunks import Chunk
from at2_rag.text.sentences import Span
from at2_rag.wanted import check_wanted

Protect: TypeAlias = str | re.Pattern[str] | Sequence[str] | Mapping[int, Iterable[Span]]


def protected_spans(chunks: Sequence[Chunk], protect: Protect | None) -> list[list[Span]]:
    """Return the protected ranges of each chunk's text, ascending and without overlaps.

    `protect` is a regular expression, a list of texts that are looked for as they are, in time
    linear in the chunks', or has ranges of characters by chunk index.
    """
    protected: list[list[Span]] = [[] for _ in chunks]
    if isinstance(protect, Mapping):
        for index, spans in protect.items():
            if not _is_integer(index) or not 0 <= index < len(chunks):
                raise InputError(
                    f"protect has the key {brief(index)}; pass an index of the {len(chunks)} "
                    "chunks, from 0"
                )
            if not isinstance(spans, Iterable):
                raise InputError(
                    f"protect has {brief(spans)} for chunk {index}; pass a list of (start, end)"
                )
            protected[index] = _merged(_checked(span, index, chunks[index].text) for span in spans)
    elif protect is not None:
        matches = _matches_of(protect)
        for spans, chunk in zip(protected, chunks, strict=True):
            check_wanted()
            spans += _merged(span for span in matches(chunk.text) if span[0] < span[1])
    return protected


def check_protect(protect: Protect) -> None:
    """Raise `InputError` for what can't be used with any chunks; ranges are checked with them."""
    if not isinstance(protect, Mapping):
        _matches_of(protect)


def _matches_of(protect: object) -> Callable[[str], Iterable[Span]]:
    """Return what yields the matches in a text; none overlaps another of the same pattern."""
    if isinstance(protect, list | tuple):
        for text in protect:
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"protect has {brief(text)}; pass texts that aren't blank, or one regular "
                    "expression"
                )
        return partial(_occurrences, protect)
    pattern = _pattern_of(protect)
    return lambda text: (match.span() for match in pattern.finditer(text))


def _occurrences(wanted: Iterable[str], text: str) -> Iterator[Span]:
    for one in wanted:
        start = text.find(one)
        while start >= 0:
            yield start, start + len(one)
            start = text.find(one, start + len(one))


def _pattern_of(protect: object) -> re.Pattern[str]:
    """Return a regular expression over text, compiled if it isn't yet."""
    if isinstance(protect, re.Pattern) and isinstance(protect.pattern, str):
        return protect
    if not isinstance(protect, str):
        raise InputError(
            f"protect is a {type(protect).__name__}; pass a regular expression over text, a list "
            "of texts, or a mapping from chunk indices to ranges of characters"
        )
    try:
        return re.compile(protect)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"protect is no regular expression: {brief(protect)} ({error}); re.escape() makes "
            "one that matches a text verbatim"
        ) from error


def _checked(span: object, index: int, text: str) -> Span:
    pair = tuple(span) if isinstance(span, Iterable) else ()
    if len(pair) == 2 and all(map(_is_integer, pair)) and 0 <= pair[0] < pair[1] <= len(text):
        return int(pair[0]), int(pair[1])
    raise InputError(
        f"protect has the range {brief(span)} for chunk {index}, whose text has {len(text)} "
        f"characters; pass (start, end) with 0 <= start < end <= {len(text)}"
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            first, last = merged.pop()
            start, end = first, max(last, end)
        merged.append((start, end))
    return merged
