"""Units of a text that are kept or dropped as a whole: sentences, and what must not be cut.

A table, a block of code and a list mean little in part, a heading nothing without what it is over.
So these are found first, line by line, and only what is between them is cut into sentences. A line
that does not end as a sentence does (a heading, a caption, "as follows:", a line of wrapped prose)
goes with what comes after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from at2_rag.text.sentences import LINE_BREAK, sentence_spans

Span = tuple[int, int]
Place = tuple[int, int, int]
"""A unit's chunk, and its half-open range of characters in that chunk's text."""

_END = 20  # characters in which a sentence's end mark is looked for
OPEN_LINES = 3
"""Most lines without an end mark that go with what comes after them."""

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪·–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s+\S")
_INDENTED = re.compile(r"(?: {2}|\t)\s*\S")
_CLOSED = re.compile(r"[.!?…؟۔।॥։።፧፨៕។၊။‼⁇⁈⁉。！？｡;][\"'”’»›)\]}」』》〉】〕）］｝]*$")


def text_units(text: str) -> tuple[Span, ...]:
    """Return where the units of a text are.

    Args:
        text: Any string; lone surrogates are fine.

    Returns:
        Half-open ranges of characters, ascending, without white space around each; together they
        hold every character that isn't white space. Empty for a blank text.
    """
    pieces: list[tuple[int, int, bool]] = []  # whether it is a block
    place = 0
    for start, end in _blocks(text):
        pieces += _sentences(text, place, start)
        pieces.append((*_stripped(text, start, end), True))
        place = end
    pieces += _sentences(text, place, len(text))
    return tuple(_joined(text, pieces))


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    for first, last in sentence_spans(text[start:end]):
        yield start + first, start + last, False


def _joined(text: str, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[Span]:
    """Join lines without an end mark to what comes after them."""
    start: int | None = None
    waiting = 0
    for number, (first, last, block) in enumerate(pieces):
        start = first if start is None else start
        ends = number + 1 == len(pieces)
        open_line = (
            not block
            and not ends
            and waiting < OPEN_LINES
            and _CLOSED.search(text, max(first, last - _END), last) is None
            and LINE_BREAK.search(text, last, pieces[number + 1][0]) is not None
        )
        if open_line:
            waiting += 1
            continue
        yield start, last
        start, waiting = None, 0


def _blocks(text: str) -> Iterator[Span]:
    """Yield where tables, code and lists are, whole lines of text."""
    lines = list(_lines(text))
    number = 0
    while number < len(lines):
        stop = max(own(text, lines, number) for own in (_fenced, _table, _list, _code))
        if stop > number:
            yield lines[number][0], lines[stop - 1][1]
        number = max(stop, number + 1)


def _lines(text: str) -> Iterator[Span]:
    """Yield where the lines are, each with its end."""
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def _fenced(text: str, lines: Sequence[Span], number: int) -> int:
    """Return where the fenced code that begins in this line ends; the line itself for none."""
    fence = _FENCE.match(text, *lines[number])
    if fence is None:
        return number
    for stop in range(number + 1, len(lines)):
        closing = _FENCE.match(text, *lines[stop])
        if closing and closing[1].startswith(fence[1]):
            return stop + 1
    return len(lines)


def _table(text: str, lines: Sequence[Span], number: int) -> int:
    """Return where a table of two rows or more ends: lines with cells between bars or tabs."""
    return _run(text, lines, number, lambda line: "|" in line or "\t" in line.strip())


def _code(text: str, lines: Sequence[Span], number: int) -> int:
    """Return where two lines of code or more end: indented, or ending as statements do."""
    return _run(
        text,
        lines,
        number,
        lambda line: line.startswith(("    ", "\t")) or line.rstrip().endswith(("{", "}", ";")),
    )


def _list(text: str, lines: Sequence[Span], number: int) -> int:
    """Return where a list of two items or more ends: items, what is indented below, blank lines."""
    if not _ITEM.match(text, *lines[number]):
        return number
    items, stop = 1, number + 1
    for place in range(number + 1, len(lines)):
        if _ITEM.match(text, *lines[place]):
            items, stop = items + 1, place + 1
        elif stop == place and _INDENTED.match(text, *lines[place]):
            stop = place + 1
        elif text[slice(*lines[place])].strip():
            break
    return stop if items > 1 else number


def _run(text: str, lines: Sequence[Span], number: int, belongs: Callable[[str], bool]) -> int:
    """Return where the lines end that aren't blank and belong to a block; one alone is none."""
    stop = number
    while stop < len(lines):
        line = text[slice(*lines[stop])]
        if not line.strip() or not belongs(line):
            break
        stop += 1
    return stop if stop - number > 1 else number


def _stripped(text: str, start: int, end: int) -> Span:
    found = text[start:end]
    return start + len(found) - len(found.lstrip()), start + len(found.rstrip())
