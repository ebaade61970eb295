"""Splits a text into units that are kept or dropped as a whole: sentences and blocks.

Blocks (`blocks`) are cut out first, and only the text between them is split into sentences. A line
without an end mark (a heading, a caption, "as follows:", wrapped prose) belongs to what follows it.
A sentence that says too little without a neighbour is in one unit with it: one that points back
("It was opened in 1859."), one of a few words ("Never take two at once."), a question's answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from at2_rag.text.blocks import block_spans
from at2_rag.text.chunks import Chunk
from at2_rag.text.scripts import UNSPACED
from at2_rag.text.sentences import (
    CLOSERS,
    END_MARKS,
    LINE_BREAK,
    Span,
    asks,
    sentence_spans,
    stripped,
)
from at2_rag.text.words import points_back
from at2_rag.wanted import check_wanted

UnitSpan = tuple[int, int, int]  # a unit's chunk, and its half-open range of characters in its text

MOST_SENTENCES = 3  # of a unit, so that a page of "It ..." isn't one
OPEN_LINES = 3  # most lines without an end mark that are joined to what follows them
FEW_WORDS = 5  # of a sentence that says too little alone

_END = 60  # characters at a piece's end that are searched for an end mark
_BEGIN = 60  # characters at a sentence's beginning that tell whether it points back
_CLOSED = re.compile(rf"[{END_MARKS}៕;]{CLOSERS}$")
_QUESTION = re.compile(
    r"\W*(?:q|question|frage|f|pregunta|p|domanda|d|вопрос|в|问|問|질문)\s?\d*[:：]", re.I
)
_ANSWER = re.compile(
    r"\W*(?:a|ans|answer|antwort|respuesta|réponse|risposta|resposta|r|ответ|о|答|답)\s?\d*[:：]"
    r"|\W*(?:answer|antwort|respuesta|réponse|risposta|resposta|ответ)\s*\n",
    re.I,
)
_TAG = re.compile(r"<[^<>]{1,500}>")
_LETTERS = 1.6  # of a script without spaces, to a word
_UNSPACED = re.compile(f"[{UNSPACED}]")


class _Piece(NamedTuple):
    """A block or a sentence, with the headings or open lines before it."""

    start: int
    end: int
    block: bool
    heading: bool  # whether it begins with a line that is no part of its first sentence
    alone: bool  # whether its lines are its own


def text_units(text: str) -> tuple[Span, ...]:
    """Return the spans of a text's units, which cover it as `sentence_spans` do."""
    pieces: list[tuple[int, int, bool]] = []  # start, end, whether it is a block
    last_end = 0
    for start, end in [*block_spans(text), (len(text), len(text))]:
        for first, last in sentence_spans(text[last_end:start]):
            pieces.append((last_end + first, last_end + last, False))
        if start < end:
            pieces.append((*stripped(text, start, end), True))
        last_end = end
    return tuple(_with_neighbours(text, list(_joined(text, pieces))))


def unit_spans(chunks: Sequence[Chunk]) -> list[UnitSpan]:
    """Return where the units of chunks' texts are, in order; a blank text has none."""
    units: list[UnitSpan] = []
    for index, chunk in enumerate(chunks):
        check_wanted()
        units += [(index, *span) for span in text_units(chunk.text)]
    return units


def _joined(text: str, pieces: Sequence[tuple[int, int, bool]]) -> Iterator[_Piece]:
    """Join lines without an end mark to what follows them."""
    start: int | None = None
    waiting = 0
    heading, begins_line = False, True
    for number, (first, last, block) in enumerate(pieces):
        start = first if start is None else start
        following = pieces[number + 1][0] if number + 1 < len(pieces) else len(text)
        open_line = (
            not block
            and following < len(text)
            and waiting < OPEN_LINES
            and _CLOSED.search(text, max(first, last - _END), last) is None
            and _line_ends(text, last, following)
        )
        if open_line:
            heading = heading or (not waiting and not text[following].islower())
            waiting += 1
            continue
        ends_line = following == len(text) or _line_ends(text, last, following)
        yield _Piece(start, last, block, heading, begins_line and ends_line)
        start, waiting, heading, begins_line = None, 0, False, ends_line


def _with_neighbours(text: str, pieces: Sequence[_Piece]) -> Iterator[Span]:
    """Join sentences that say too little alone to their neighbours."""
    unit: list[_Piece] = []
    for piece in pieces:
        if unit and not _belongs(text, unit, piece):
            yield unit[0].start, unit[-1].end
            unit = []
        unit.append(piece)
    if unit:
        yield unit[0].start, unit[-1].end


def _belongs(text: str, unit: Sequence[_Piece], piece: _Piece) -> bool:
    """Return whether a piece is part of the unit before it."""
    last = unit[-1]
    if last.block or len(unit) == MOST_SENTENCES:
        return False
    answers = _asks(text, last)
    if piece.block or _ANSWER.match(text, piece.start, piece.end):
        return answers or not piece.block
    if _begins_question(text, piece):
        return False
    if points_back(_plain(text, piece.start, min(piece.end, piece.start + _BEGIN))):
        return not _asks(text, piece) or len(unit) + 1 < MOST_SENTENCES  # its answer is to come
    if piece.heading:
        return False
    if answers or (len(unit) == 1 and _is_short(text, last)):
        return True
    if _is_short(text, piece):
        return not _asks(text, piece) or len(unit) + 1 < MOST_SENTENCES
    return _begins_question(text, unit[0]) and not _line_ends(text, last.end, piece.start)


def _begins_question(text: str, piece: _Piece) -> bool:
    """Return whether a piece is a question as in a FAQ: marked, or a line by itself."""
    marked = _QUESTION.match(text, piece.start, piece.end) is not None
    return marked or (piece.alone and _asks(text, piece))


def _asks(text: str, piece: _Piece) -> bool:
    return asks(text, piece.start, piece.end)


def _is_short(text: str, piece: _Piece) -> bool:
    if piece.end - piece.start > 20 * FEW_WORDS:
        return False
    sentence = _plain(text, piece.start, piece.end)
    letters = len(_UNSPACED.findall(sentence))
    return max(len(sentence.split()), letters / _LETTERS) <= FEW_WORDS


def _plain(text: str, start: int, end: int) -> str:
    return _TAG.sub(" ", text[start:end])


def _line_ends(text: str, end: int, following: int) -> bool:
    """Return whether a line or an HTML block ends between two pieces."""
    return LINE_BREAK.search(text, end, following) is not None or text[end - 1 : end] == ">"
