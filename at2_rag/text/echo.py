"""Text that repeats the question and says nothing of its own.

Attention goes to words that stand in the question, whoever wrote them: a forum post that quotes the
question, a list of related questions, a page stuffed with its words. So the scoring model doesn't
read a chunk's *echoes* of the question, and what is left must carry the score.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from at2_rag.text.chunks import Chunk
from at2_rag.text.function_words import FUNCTION_WORDS
from at2_rag.text.scripts import QUESTION_MARKS, UNSPACED, normalized
from at2_rag.text.sentences import Span, asks, sentence_spans
from at2_rag.wanted import check_wanted

_WORD = re.compile(rf"[{UNSPACED}]|\w+(?:['’]\w+)*")
_CHARACTER = re.compile(r"\S")
_MARK = re.compile(rf"\W*?[{QUESTION_MARKS}][!！{QUESTION_MARKS}]*")
_BEGINNING = re.compile(r"(?:^|[.!?…:>|\]\n])\W*$")
_LEAST_SHARE = 0.8
"""Share of the question's words, from the first on, that make an echo of it."""

_SHORT = 5
"""A question of fewer words may stand inside an answer: "Jane Austen, who wrote Emma, was ..."."""

_LEAST_NAMED = 0.6
"""Share of the question's content words without which nothing is an echo of it."""

_NEAR = 20
"""Characters beside a span that show whether it is part of a sentence."""

_REPEATS = 4.0
"""How often a sentence that is stuffed with the question's words has each on average, at least."""

_LONGEST = 400
"""Words of a question beyond which it is a document, and overlaps with chunks are no echoes."""

_QUESTION_WORDS = frozenset(
    "who whom whose what when where which why how is are was were am do does did can could should "
    "would will has have had may wer was wann wo warum wie welche welcher welches ist sind hat qui "
    "que quoi quand où pourquoi comment quel quelle est quién qué cuándo dónde cómo cuál por chi "
    "che cosa quando dove perché come quale quem onde qual wie waar wanneer waarom hoe кто что "
    "когда где почему как какой какая".split()
)
_FUNCTION_WORDS = FUNCTION_WORDS | {"q", "question", "answer"}


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    start: int
    end: int


def without_echoes(query: str, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return chunks with blanks where their texts repeat the query; positions of all else stay.

    A chunk without an echo is returned as it is. Titles are left alone: that of an entry of a FAQ
    may well be the question. So are statements and lists of words, which the text that they are
    looked up in may well contain.
    """
    words = [word.text for word in _words(query)]
    is_question = asks(query, 0, len(query.rstrip()))
    is_question = is_question or (bool(words) and words[0] in _QUESTION_WORDS)
    if not 2 <= len(words) <= _LONGEST:
        return list(chunks)
    return [_without_echoes(chunk, words, is_question) for chunk in chunks]


def _without_echoes(chunk: Chunk, query: Sequence[str], is_question: bool) -> Chunk:
    check_wanted()
    text = _blanked(chunk.text, query, is_question)
    return chunk if text == chunk.text else replace(chunk, text=text)


def _blanked(text: str, query: Sequence[str], is_question: bool) -> str:
    """Return a text with blanks in place of its echoes of a query.

    `query` are its words as `_words` gives them; `is_question` says whether it asks.
    """
    pieces, last = [], 0
    for start, end in sorted(_echoes(text, query, is_question)):
        start = max(start, last)
        if start < end:
            pieces += [text[last:start], _CHARACTER.sub(" ", text[start:end])]
            last = end
    return "".join([*pieces, text[last:]])


def _echoes(text: str, query: Sequence[str], is_question: bool) -> list[Span]:
    """Return the spans that repeat a query, which may overlap."""
    known = {word for word in query if word not in _FUNCTION_WORDS}
    folded = _folded(text)
    if sum(word in folded for word in known) < _LEAST_NAMED * len(known):
        return []
    words = _words(text)
    spans = list(_runs(text, words, query, is_question))
    if _is_stuffed(words, known, share=0.9):
        return [(0, len(text))]
    starts = [word.start for word in words]
    for start, end in sentence_spans(text):
        inside = words[bisect_left(starts, start) : bisect_left(starts, end)]
        # Beside an echo no other question answers, either.
        asks_again = asks(text, start, end) and (spans or _says_nothing_new(inside, known))
        if asks_again or _is_stuffed(inside, known, share=0.6):
            spans.append((start, end))
    return spans


def _runs(
    text: str, words: Sequence[_Word], query: Sequence[str], is_question: bool
) -> Iterator[Span]:
    """Yield where the query's words stand in a row, from the first on."""
    least = max(2, -int(-_LEAST_SHARE * len(query) // 1))
    index = 0
    while index < len(words):
        length = 0
        while (
            length < len(query)
            and index + length < len(words)
            and words[index + length].text == query[length]
        ):
            length += 1
        if length < least:
            index += 1
            continue
        start, end = words[index].start, words[index + length - 1].end
        mark = _MARK.match(text, end)
        if mark or (is_question and (len(query) >= _SHORT or _is_sentence(text, start, end))):
            yield start, mark.end() if mark else end
        index += length


def _is_sentence(text: str, start: int, end: int) -> bool:
    """Tell whether a span begins a line or a sentence, and ends one or is followed by another."""
    before, after = text[max(0, start - _NEAR) : start], text[end : end + _NEAR].lstrip(" \t")
    return _BEGINNING.search(before) is not None and not (
        after[:1].isalnum() and after[:1].islower()
    )


def _says_nothing_new(words: Sequence[_Word], known: set[str]) -> bool:
    content = {word.text for word in words} - _FUNCTION_WORDS
    return content <= known and len(content) >= max(2, _LEAST_NAMED * len(known))


def _is_stuffed(words: Sequence[_Word], known: set[str], *, share: float) -> bool:
    """Tell whether at least a share of the words are a query's, again and again."""
    content = [word.text for word in words if word.text not in _FUNCTION_WORDS]
    repeated = [word for word in content if word in known]
    different = len(set(repeated))
    return different >= 2 and len(repeated) >= max(_REPEATS * different, share * len(content), 6)


def _words(text: str) -> list[_Word]:
    return [_Word(_folded(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


def _folded(text: str) -> str:
    return normalized(text, "NFKC").casefold()
