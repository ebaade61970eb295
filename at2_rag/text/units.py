"""Splits a text into units that are kept or dropped as a whole: sentences and blocks.

Part of a table, a list or a block of code means little, and so does a heading alone. Such blocks
are found first, line by line, and only the text between them is split into sentences. A line
without an end mark (a heading, a caption, "as follows:", a line of wrapped prose) belongs to what
follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from at2_rag.text.chunks import Chunk
from at2_rag.text.sentences import LINE_BREAK, sentence_spans

Span = tuple[int, int]
Place = tuple[int, int, int]
"""A unit's chunk, and its half-open range of characters in that chunk's text."""

_END = 20  # characters at a line's end that are searched for an end mark
OPEN_LINES = 3
"""Most lines without an end mark that are joined to what follows them."""

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪·–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s+\S")
_INDENTED = re.compile(r"(?: {2}|\t)\s*\S")
_CLOSED = re.compile(r"[.!?…؟۔।॥։።፧፨៕។၊။‼⁇⁈⁉。！？｡;][\"'”’»›)\]}」』》〉】〕）］｝]*$")


def text_units(text: str) -> tuple[Span, ...]:
    """Return the spans of a text's units.

    Args:
        text: Any string; lone surrogates are fine.

    Returns:
        Half-open ranges of characters, ascending, without white space around each. Together they
        cover every character that isn't white space; there are none in a blank text.
    """
    pieces: list[tuple[int, int, bool]] = []  # start, end, whether it is a block
    last_end = 0
    for start, end in _blocks(text):
        pieces += _sentences(text, last_end, start)
        pieces.append((*_stripped(text, start, end), True))
        last_end = end
    pieces += _sentences(text, last_end, len(text))
    return tuple(_joined(text, pieces))


def unit_places(chunks: Sequence[Chunk]) -> list[Place]:
    """Return where the units of chunks' texts are, in order; a blank text has none."""
    return [(i, *span) for i, chunk in enumerate(chunks) for span in text_units(chunk.text)]


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    for first, last in sentence_spans(text[start:end]):
        yield start + first, start + last, False


def _joined(text: str, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[Span]:
    """Join lines without an end mark to what follows them."""
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
    """Yield the spans of tables, code and lists, in whole lines."""
    lines = list(_lines(text))
    number = 0
    while number < len(lines):
        stop = max(end_of(text, lines, number) for end_of in (_fenced, _table, _list, _code))
        if stop > number:
            yield lines[number][0], lines[stop - 1][1]
        number = max(stop, number + 1)


def _lines(text: str) -> Iterator[Span]:
    """Yield the spans of the lines, line ends included."""
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def _fenced(text: str, lines: Sequence[Span], number: int) -> int:
    """Return the line after the fenced code that begins in this line; the line itself for none."""
    fence = _FENCE.match(text, *lines[number])
    if fence is None:
        return number
    for stop in range(number + 1, len(lines)):
        closing = _FENCE.match(text, *lines[stop])
        if closing and closing[1].startswith(fence[1]):
            return stop + 1
    return len(lines)


def _table(text: str, lines: Sequence[Span], number: int) -> int:
    """Return the line after a table of at least two rows: lines with cells between bars or tabs."""
    return _run(text, lines, number, lambda line: "|" in line or "\t" in line.strip())


def _code(text: str, lines: Sequence[Span], number: int) -> int:
    """Return the line after at least two lines of code: indented, or ending like statements."""
    return _run(
        text,
        lines,
        number,
        lambda line: line.startswith(("    ", "\t")) or line.rstrip().endswith(("{", "}", ";")),
    )


def _list(text: str, lines: Sequence[Span], number: int) -> int:
    """Return the line after a list of at least two items, with indented and blank lines in it."""
    if not _ITEM.match(text, *lines[number]):
        return number
    items, stop = 1, number + 1
    for line in range(number + 1, len(lines)):
        if _ITEM.match(text, *lines[line]):
            items, stop = items + 1, line + 1
        elif stop == line and _INDENTED.match(text, *lines[line]):
            stop = line + 1
        elif text[slice(*lines[line])].strip():
            break
    return stop if items > 1 else number


def _run(text: str, lines: Sequence[Span], number: int, belongs: Callable[[str], bool]) -> int:
    """Return the line after at least two lines in a row that belong to a block; none is blank."""
    stop = number
    while stop < len(lines):
        line = text[slice(*lines[stop])]
        if not line.strip() or not belongs(line):
            break
        stop += 1
    return stop if stop - number > 1 else number


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
