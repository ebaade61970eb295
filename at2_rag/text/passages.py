"""Passages of a long text: of one that nobody has cut into chunks, such as what a tool returned."""

from __future__ import annotations

import re

from at2_rag.text.sentences import Span

LEAST_WORDS = 40
"""A paragraph of fewer words goes with what follows it, as a heading does."""

MOST_WORDS = 160
"""A passage of as many words ends with the line, wherever that is; a longer line stays whole."""

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def passage_spans(text: str) -> list[Span]:
    """Return the ranges of characters of a text's passages, which are all of it.

    A passage ends at an empty line, or within a longer paragraph, log or list at the end of a line.
    """
    spans: list[Span] = []
    start, words, gap = 0, 0, False
    for line in _LINE.finditer(text):
        length = len(line[0].split())
        if length and words >= LEAST_WORDS and (gap or words + length > MOST_WORDS):
            spans.append((start, line.start()))
            start, words = line.start(), 0
        words, gap = words + length, not length
    return [*spans, (start, len(text))] if text else []
