"""Splits a text into units that are kept or dropped as a whole: sentences and blocks.

Part of a table, a list or a block of code means little, and so does a heading alone. Such blocks
are cut out first, in whole lines, and only the text between them is split into sentences. A line
without an end mark (a heading, a caption, "as follows:", wrapped prose) belongs to what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from at2_rag.text.chunks import Chunk
from at2_rag.text.sentences import LINE_BREAK, Span, sentence_spans, stripped

UnitSpan = tuple[int, int, int]  # a unit's chunk, and its half-open range of characters in its text

_END = 20  # characters at a line's end that are searched for an end mark
OPEN_LINES = 3  # most lines without an end mark that are joined to what follows them

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪·–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s+\S")
_INDENTED = re.compile(r"(?: {2}|\t)\s*\S")
_CLOSED = re.compile(r"[.!?…؟۔।॥։።፧፨៕។၊။‼⁇⁈⁉。！？｡;][\"'”’»›)\]}」』》〉】〕）］｝]*$")


def text_units(text: str) -> tuple[Span, ...]:
    """Return the spans of a text's units, which cover it as `sentence_spans` do."""
    pieces: list[tuple[int, int, bool]] = []  # start, end, whether it is a block
    last_end = 0
    for start, end in [*_blocks(text), (len(text), len(text))]:
        for first, last in sentence_spans(text[last_end:start]):
            pieces.append((last_end + first, last_end + last, False))
        if start < end:
            pieces.append((*stripped(text, start, end), True))
        last_end = end
    return tuple(_joined(text, pieces))


def unit_spans(chunks: Sequence[Chunk]) -> list[UnitSpan]:
    """Return where the units of chunks' texts are, in order; a blank text has none."""
    return [(i, *span) for i, chunk in enumerate(chunks) for span in text_units(chunk.text)]


def _joined(text: str, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[Span]:
    """Join lines without an end mark to what follows them."""
    start: int | None = None
    waiting = 0
    for number, (first, last, block) in enumerate(pieces):
        start = first if start is None else start
        open_line = (
            not block
            and number + 1 < len(pieces)
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
    lines = text.splitlines(keepends=True)
    starts = list(accumulate(map(len, lines), initial=0))
    number = 0
    while number < len(lines):
        stop = max(
            _fenced(lines, number),
            _run(lines, number, _is_table_row),
            _run(lines, number, _is_code),
            _list(lines, number),
        )
        if stop > number:
            yield starts[number], starts[stop]
        number = max(stop, number + 1)


# Each of these three returns the line after the block that begins in a line; that line for none.


def _fenced(lines: Sequence[str], number: int) -> int:
    fence = _FENCE.match(lines[number])
    if fence is None:
        return number
    for stop in range(number + 1, len(lines)):
        closing = _FENCE.match(lines[stop])
        if closing and closing[1].startswith(fence[1]):
            return stop + 1
    return len(lines)


def _run(lines: Sequence[str], number: int, belongs: Callable[[str], bool]) -> int:
    """At least two lines in a row that belong to a block, none of them blank."""
    stop = number
    while stop < len(lines) and lines[stop].strip() and belongs(lines[stop]):
        stop += 1
    return stop if stop - number > 1 else number


def _list(lines: Sequence[str], number: int) -> int:
    """At least two items, with the indented and blank lines between them."""
    if not _ITEM.match(lines[number]):
        return number
    items, stop = 1, number + 1
    for line in range(number + 1, len(lines)):
        if _ITEM.match(lines[line]):
            items, stop = items + 1, line + 1
        elif stop == line and _INDENTED.match(lines[line]):
            stop = line + 1
        elif lines[line].strip():
            break
    return stop if items > 1 else number


def _is_table_row(line: str) -> bool:
    return "|" in line or "\t" in line.strip()


def _is_code(line: str) -> bool:
    return line.startswith(("    ", "\t")) or line.rstrip().endswith(("{", "}", ";"))
