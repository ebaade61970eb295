"""Splits a text into sentences, as spans of it.

A line break ends a sentence, as in the reference implementation of AT2. Within a line Unicode end
marks do, with rules for abbreviations, initials, numbered items and quotations; in doubt nothing is
split.

The rules are our own, since no library gives spans and takes any text: sentencex 1.0.32 panics on
some wide characters, blingfire 0.1.8 refuses lone surrogates and splits "1." from its item, pysbd
0.3.4 and uniseg 0.10.1 need 17 and 73 seconds for 54,000 characters on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
_BREAKS = r"\r\n\v\f\x1c-\x1e\x85\u2028\u2029"
LINE_BREAK = re.compile(f"[{_BREAKS}]")  # a character that ends a line, as in `str.splitlines`
_LINE = re.compile(f"[^{_BREAKS}]+")
_WORD = re.compile(r"[^\W_]")
_WIDE = "。！？｡"
_CLOSERS = r"[\"'”’»›)\]}」』》〉】〕）］｝]*"
_END = re.compile(rf"(?:[.!?…؟۔।॥։።፧፨។၊။‼⁇⁈⁉{_WIDE}]+)({_CLOSERS})")
_NUMBER = re.compile(r"\W*+\w{1,3}")
_LAST_WORD = re.compile(r"[^\s([{\"'“‘«]{1,20}$")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")
_ABBREVIATIONS = frozenset(
    "adm al approx assn capt cf ch co col corp cpl dept dr ed eds est etc fig figs gen gov hon inc "
    "jr lt ltd maj messrs mme mr mrs ms mt no nos op pp prof rep rev sen sgt sr st ste vol vols vs "
    "jan feb mar apr jun jul aug sep sept oct nov dec bzw ca dipl hr nr usw vgl".split()
)


def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Return the spans of a text's sentences.

    They ascend, without white space around each, and together cover every character that isn't
    white space. A piece without any letter or digit (a rule of dashes, a lone bracket) belongs to
    the sentence before it, or at the start of the text to the one after it.
    """
    spans: list[tuple[int, int]] = []
    worded = False  # whether the last span has a letter or a digit
    for line in _LINE.finditer(text):
        for first, last in _pieces(line[0]):
            start, end = stripped(text, line.start() + first, line.start() + last)
            if start >= end:
                continue
            has_word = _WORD.search(text, start, end) is not None
            if spans and not (worded and has_word):
                start = spans.pop()[0]
                has_word = has_word or worded
            spans.append((start, end))
            worded = has_word
    return tuple(spans)


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends; start >= end if nothing is left."""
    piece = text[start:end]
    return end - len(piece.lstrip()), start + len(piece.rstrip())


def _pieces(line: str) -> Iterator[tuple[int, int]]:
    start = 0
    number = _NUMBER.match(line)
    after_number = number.end() if number else None
    for mark in _END.finditer(line):
        if mark.start() == after_number and start == 0 and mark[0] == ".":  # "1." before an item
            continue
        if _ends_sentence(line, start, mark):
            yield start, mark.end()
            start = mark.end()
    yield start, len(line)


def _ends_sentence(line: str, start: int, mark: re.Match[str]) -> bool:
    marks = line[mark.start() : mark.start(1)]
    if mark.end() == len(line) or marks[-1] in _WIDE:
        return True
    if not line[mark.end()].isspace():
        return False
    after = line[mark.end() : mark.end() + 50].lstrip()[:1]
    if after.islower():
        return False
    if marks != "." or mark[1]:
        return True
    word = _LAST_WORD.search(line, max(start, mark.start() - 20), mark.start())
    if word is None:
        return True
    initial = len(word[0]) == 1 and word[0].isupper()
    known = word[0].lower() in _ABBREVIATIONS
    return not (initial or known or _INITIALS.fullmatch(word[0]))
