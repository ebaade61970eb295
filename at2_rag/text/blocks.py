"""Where a text has tables, lists, code and settings: blocks, of which a part means little."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from at2_rag.text.sentences import END_MARKS, Span

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪·–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s+\S")
_INDENTED = re.compile(r"(?: {2}|\t)\s*\S")
_ELEMENT = re.compile(r"<(/?)(?:table|ul|ol|dl|pre)\b[^<>]{0,500}>", re.IGNORECASE)
# "key: value": prose has capitals before the colon, or an end mark at the end.
_SETTING = re.compile(
    rf"(\s*+)(?:- )?((?=[a-z_.\"'])[\w.\"'-]{{1,40}}+|"
    rf"[\w.\"'-]{{1,40}}+(?: [\w.-]{{1,40}}+){{,2}}(?!.*[{END_MARKS}]\s*$))\s?[:=](?:\s|$)"
)
_WITHIN_SETTINGS = re.compile(r"\s+\S|- |#")


def block_spans(text: str) -> Iterator[Span]:
    """Yield the spans of blocks, ascending: HTML elements, or whole lines with their breaks."""
    last = 0
    for start, end in [*_marked(text), (len(text), len(text))]:
        lines = text[last:start].splitlines(keepends=True)
        starts = list(accumulate(map(len, lines), initial=last))
        number = sought = 0  # settings don't begin in a line before `sought`
        while number < len(lines):
            settings = number
            if number >= sought:
                settings, sought = _settings(lines, number)
            stop = max(
                settings,
                _run(lines, number, _is_table_row),
                _run(lines, number, _is_code),
                _list(lines, number),
            )
            if stop > number:
                yield starts[number], starts[stop]
            number = max(stop, number + 1)
        if start < end:
            yield start, end
        last = end


def _marked(text: str) -> list[Span]:
    """Return the spans of fenced code and of HTML tables and lists; one never closed runs on."""
    lines = text.splitlines(keepends=True)
    starts = list(accumulate(map(len, lines), initial=0))
    spans = []
    number = 0
    while number < len(lines):
        stop = _fenced(lines, number)
        if stop > number:
            spans.append((starts[number], starts[stop]))
        number = max(stop, number + 1)
    outside = [0, *(position for span in spans for position in span), len(text)]
    for first, last in zip(outside[::2], outside[1::2], strict=True):
        depth, start = 0, first
        for tag in _ELEMENT.finditer(text, first, last):
            if not tag[1]:
                start = start if depth else tag.start()
                depth += 1
            elif depth:
                depth -= 1
                if not depth:
                    spans.append((start, tag.end()))
        if depth:
            spans.append((start, last))
    return sorted(spans)


# Each of these returns the line after the block that begins in a line; that line for none.


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


def _settings(lines: Sequence[str], number: int) -> tuple[int, int]:
    """At least two lines of keys and values; a key that comes again at the margin begins anew.

    Also returns the next line in which a block may begin: if there is none here, the lines up to
    the only one with a key and a value, or to the last that might belong, begin none either.
    """
    keys: set[str] = set()
    count, stop, only = 0, number, number
    while stop < len(lines):
        setting = _SETTING.match(lines[stop])
        within = _is_code(lines[stop]) or (count and _WITHIN_SETTINGS.match(lines[stop]))
        if setting is None and not within:
            break
        if setting:
            if not setting[1] and setting[2] in keys:
                break
            keys |= {setting[2]} if not setting[1] else set()
            count, only = count + 1, stop
        stop += 1
    if count > 1:
        return stop, stop
    return number, max(number, only if count else stop - 1) + 1


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
