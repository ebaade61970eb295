"""Text that repeats the question and says nothing of its own.

Attention goes to words that stand in the question, whoever wrote them: a forum post that quotes the
question, a list of related questions, a page stuffed with its words. So the scoring model doesn't
read a chunk's *echoes* of the question, and what is left must carry the score.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from at2_rag.text.chunks import Chunk
from at2_rag.text.sentences import Span, sentence_spans

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)*")
_ASKS = re.compile(r"\W*[?？؟;՞]")
_LEAST_SHARE = 0.8
"""Share of the question's words, from the first on, that make an echo of it."""

_SHORT = 5
"""A question of fewer words may stand inside an answer: "Jane Austen, who wrote Emma, was ..."."""

_REPEATS = 2.0
"""How often a sentence that is stuffed with the question's words has each on average, at least."""

_LONGEST = 400
"""Words of a question beyond which it is a document, and overlaps with chunks are no echoes."""

_FUNCTION_WORDS = frozenset(
    "a an and are as at be by can do does did for from had has have how i in is it its my of on or "
    "our that the their there this to was we were what when where which who whom whose why will "
    "with would you your q question answer".split()
)


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    start: int
    end: int


def without_echoes(query: str, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return chunks with blanks where they repeat the query; positions of all else stay.

    A chunk without an echo is returned as it is.
    """
    words = [word.text for word in _words(query)]
    asks = bool(_ASKS.search(query.rstrip()[-1:]))
    if not 2 <= len(words) <= _LONGEST:
        return list(chunks)
    return [
        replace(chunk, text=blanked(chunk.text, words, asks), title=_title(chunk, words, asks))
        for chunk in chunks
    ]


def blanked(text: str, query: Sequence[str], asks: bool) -> str:
    """Return a text with blanks in place of its echoes of a query.

    `query` are its words as `_words` gives them; `asks` says whether it ends as a question does.
    """
    echoes = _echoes(text, query, asks)
    if not echoes:
        return text
    pieces, last = [], 0
    for start, end in sorted(echoes):
        start = max(start, last)
        if start < end:
            pieces += [text[last:start], re.sub(r"\S", " ", text[start:end])]
            last = end
    return "".join([*pieces, text[last:]])


def _title(chunk: Chunk, query: Sequence[str], asks: bool) -> str | None:
    return chunk.title and blanked(chunk.title, query, asks)


def _echoes(text: str, query: Sequence[str], asks: bool) -> list[Span]:
    """Return the spans that repeat a query, which may overlap."""
    words = _words(text)
    spans = list(_runs(text, words, query, asks))
    known = {word for word in query if word not in _FUNCTION_WORDS}
    if _is_stuffed(words, known):
        return [(0, len(text))]
    if not spans and not _mentions(words, known):
        return spans
    for start, end in sentence_spans(text):
        inside = [word for word in words if start <= word.start < end]
        is_question = _ASKS.fullmatch(text[end - 1 : end]) is not None
        # Beside an echo, other questions are asked: none of them answers.
        asked_again = is_question and (spans or _says_nothing_new(inside, known))
        if asked_again or _is_stuffed(inside, known):
            spans.append((start, end))
    return spans


def _runs(text: str, words: Sequence[_Word], query: Sequence[str], asks: bool) -> Iterator[Span]:
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
        mark = _ASKS.match(text, end)
        if mark or (asks and len(query) >= _SHORT) or _stands_alone(text, start, end):
            yield start, mark.end() if mark else end
        index += length


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Tell whether nothing but white space and punctuation is beside a span on its line."""
    before, after = text[:start].rpartition("\n")[2], text[end:].partition("\n")[0]
    return not any(character.isalnum() for character in before + after)


def _says_nothing_new(words: Sequence[_Word], known: set[str]) -> bool:
    content = {word.text for word in words} - _FUNCTION_WORDS
    return content <= known and len(content) >= max(2, 0.6 * len(known))


def _mentions(words: Sequence[_Word], known: set[str]) -> bool:
    return len(known & {word.text for word in words}) >= max(2, 0.6 * len(known))


def _is_stuffed(words: Sequence[_Word], known: set[str]) -> bool:
    """Tell whether words are mostly a query's, again and again."""
    content = [word.text for word in words if word.text not in _FUNCTION_WORDS]
    repeated = [word for word in content if word in known]
    different = len(set(repeated))
    return different >= 2 and len(repeated) >= max(_REPEATS * different, 0.6 * len(content), 6)


def _words(text: str) -> list[_Word]:
    return [
        _Word(unicodedata.normalize("NFKC", match[0]).casefold(), match.start(), match.end())
        for match in _WORD.finditer(text)
    ]
