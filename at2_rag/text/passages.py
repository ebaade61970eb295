"""Passages of a long text: of one that nobody has cut into chunks, such as what a tool returned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise

from at2_rag.text.scripts import length
from at2_rag.text.sentences import Span

LEAST_WORDS = 40
"""A paragraph of fewer words goes with what follows it, as a heading does."""

MOST_WORDS = 160
"""A passage of as many words ends with the line, sentence or JSON element, wherever that is."""

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SENTENCE = re.compile(r"[^.!?。！？]*(?:[.!?。！？]+[\"')\]]*\s*|$)")
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


def passage_spans(text: str) -> list[Span]:
    """Return the ranges of characters of a text's passages, which are all of it.

    A passage ends at an empty line, or within a longer paragraph, log or list at the end of a line;
    within a longer line at the end of a sentence; within JSON at the end of an element.
    """
    spans: list[Span] = []
    start, words, gap, at_gap = 0, 0, False, True
    for first, last in _pieces(text):
        count = length(text[first:last])
        if count and words >= LEAST_WORDS and (gap or words + count > MOST_WORDS):
            spans.append((start, first))
            start, words, at_gap = first, 0, gap
        words, gap = words + count, not count
    if words < LEAST_WORDS and not at_gap:  # the end of a paragraph, log or line
        start = spans.pop()[0]
    return [*spans, (start, len(text))] if text else []


def _pieces(text: str) -> Iterator[Span]:
    """Yield ranges that stay whole, one after another: of JSON its elements, else lines."""
    body = text.lstrip()
    if body.startswith(("[", "{")):
        try:
            _DECODER.decode(text.strip())
            cuts = [0, *_elements(text, len(text) - len(body)), len(text)]
        except (ValueError, RecursionError):
            pass
        else:
            yield from pairwise(cuts)
            return
    for line in _LINE.finditer(text):
        if length(line[0]) <= MOST_WORDS:
            yield line.span()
            continue
        for sentence in _SENTENCE.finditer(text, *line.span()):
            if sentence[0]:
                yield sentence.span()


def _elements(text: str, start: int) -> Iterator[int]:
    """Yield where the elements of the JSON container at `start` begin, but for the first one.

    Those of an element that is longer than a passage are yielded, too.
    """
    is_object, position, first = text[start] == "{", start + 1, True
    while True:
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
        if text[position] in "]}":
            return
        if not first:
            yield position
        first = False
        if is_object:
            _, position = _DECODER.raw_decode(text, position)  # the key
            position = text.index(":", position) + 1
            while text[position].isspace():
                position += 1
        value, end = _DECODER.raw_decode(text, position)
        if isinstance(value, (dict, list)) and length(text[position:end]) > MOST_WORDS:
            yield from _elements(text, position)
        position = end
