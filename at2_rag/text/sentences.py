"""Splits a text into sentences, as spans of it.

A line break ends a sentence, as in the reference implementation of AT2, and so does the end of an
HTML block. Within a line Unicode end marks do, where both sides can stand alone: not after an
abbreviation, an initial or an ordinal (`words`), and not inside brackets or quotation marks. In
doubt nothing is split.

The rules are our own, since none of seven libraries comes near them where the language isn't known,
and some fail on some input (docs/lab/splitter.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from at2_rag.text.scripts import QUESTION_MARKS
from at2_rag.text.words import (
    PARTICLES,
    STARTERS,
    UNITS,
    has_case,
    is_label,
    is_month,
    kind_of,
    writes_ordinals,
)

Span = tuple[int, int]
_BREAKS = r"\r\n\v\f\x1c-\x1e\x85\u2028\u2029"
LINE_BREAK = re.compile(f"[{_BREAKS}]")  # a character that ends a line, as in `str.splitlines`
_LINE = re.compile(f"[^{_BREAKS}]+")
_TAG = re.compile(r"<[^<>]{1,500}>")
_TAGS = re.compile(rf"(?:{_TAG.pattern}\s*)+")
_BLOCK_TAG = re.compile(
    r"<(/?)(?:p|div|li|[uod]l|d[td]|table|t(?:head|body|r)|h[1-6]|[bh]r|section|article|header|"
    r"footer|blockquote|pre|figure|figcaption|nav|aside|main|form)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]")

_WIDE = "。！？｡．"
_UNSPACED = frozenset(_WIDE + "।॥።፧။")  # end marks that need no white space after them
END_MARKS = f".!?…؟۔।॥։።፧፨។။‼⁇⁈⁉{_WIDE}"
CLOSERS = (
    r"(?:[\"'”’»›)\]}」』》〉】〕）］｝]|“(?!\w)|[ \u00a0\u202f](?:[»”]|'')(?!\w)"
    r"|</?\w[^<>]{0,200}>|[ ]?\[\d{1,3}\])*"  # tags, and the numbers of notes
)
_END = re.compile(
    rf"(?:[{END_MARKS}](?:[{END_MARKS}]|[ \u00a0](?=[.!?…](?!\w)))*"
    rf"|(?<=[α-ωά-ώ]);(?!\w)|(?<=[\u0561-\u0587]):(?=\s))({CLOSERS})"
)
_ASKS = re.compile(rf"(?:[{QUESTION_MARKS}]|[α-ωά-ώ];)[!！{QUESTION_MARKS}]*{CLOSERS}$")
_LAST = 60  # characters at an end that are searched for a question mark
_PAIRS = ("()", "[]", "「」", "『』", "《》", "（）", "【】", "“”", "«»", "»«", "<>")
# Brackets and quotations are one piece, up to some length: beyond it the mark was never closed.
_ENCLOSED = re.compile(
    "|".join(
        rf"{re.escape(pair[0])}[^{re.escape(pair)}]{{0,240}}{re.escape(pair[1])}" for pair in _PAIRS
    )
    + r"|„[^„“”]{0,240}[“”]|(?<![^\s(\[—–-])\"(?=\S)[^\"]{0,240}\""
)
_OPENER = re.compile(f"[{re.escape('„' + chr(34) + ''.join(pair[0] for pair in _PAIRS))}]")
_NOWHERE = (sys.maxsize, sys.maxsize)
_ITEM = re.compile(r"\W*+\w{1,3}")
_BEFORE = re.compile(r"[\s>(\[{\"'’“‘«„「\u3040-\u30ff\u4e00-\u9fff]")
_NEXT = re.compile(r"[\s\"'“”‘„«»「『(\[¿¡—–-]{1,20}([^\W\d_]+['’]?|\d*)")
_NUMBER = re.compile(r"(?:\d{1,2}\.)*(?:\d{1,4}|[IVX]{2,6})")
_PHRASE = re.compile(r"(?<!\w)([^\W\d_]{1,2})\.\s?$")  # what stands before "B" in "z. B"
_QUANTITY = re.compile(r"(?<!\d)\d{1,3}\s?$")
_DATE = re.compile(r"\d{1,2}\.\s?\d")  # of "1998. 5. 3."
_LISTED = re.compile(r"\d{1,3}\.\s")
_UNKNOWN = 4  # letters of a word that may be an abbreviation before a number
_SAMPLE = 4000  # characters of a text that tell its language
_LONGEST = 20  # characters before or after a mark that are looked at
_TAKES_UP = re.compile("[、，,と]|って|という|など|[のはがをにもでへや]")  # a quotation that ended


def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Return the spans of a text's sentences.

    They ascend, without white space around each, and together cover every character that isn't
    white space. A piece without any letter or digit (a rule of dashes, a lone bracket, a tag)
    belongs to the sentence before it, or at the start of the text to the one after it.
    """
    sample = text[:_SAMPLE]
    spans: list[tuple[int, int]] = []
    worded = False  # whether the last span has a letter or a digit
    for line_start, line_end in _lines(text):
        for first, last in _pieces(text[line_start:line_end], sample):
            start, end = stripped(text, line_start + first, line_start + last)
            if start >= end:
                continue
            piece = text[start:end]
            has_word = _WORD.search(_TAG.sub("", piece) if "<" in piece else piece) is not None
            if spans and not (worded and has_word):
                start = spans.pop()[0]
                has_word = has_word or worded
            spans.append((start, end))
            worded = has_word
    return tuple(spans)


def asks(text: str, start: int, end: int) -> bool:
    """Tell whether a part of a text ends as a question does."""
    return _ASKS.search(text, max(start, end - _LAST), end) is not None


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends; start >= end if nothing is left."""
    piece = text[start:end]
    return end - len(piece.lstrip()), start + len(piece.rstrip())


def _lines(text: str) -> Iterator[Span]:
    """Yield lines, also cut where an HTML block ends or begins."""
    for line in _LINE.finditer(text):
        start = line.start()
        for tags in _TAGS.finditer(text, start, line.end()) if "<" in line[0] else ():
            cut = None
            for tag in _BLOCK_TAG.finditer(text, *tags.span()):
                if tag[1] or tag[0][1:3].lower() in ("br", "hr"):
                    cut = tag.end()
                elif cut is None:
                    cut = tag.start()
                    break
            if cut is not None and cut > start:
                yield start, cut
                start = cut
        yield start, line.end()


def _pieces(line: str, sample: str) -> Iterator[Span]:
    start = 0
    item = _ITEM.match(line)
    after_item = item.end() if item else None
    enclosed = _enclosed(line)
    first, last = next(enclosed, _NOWHERE)
    for mark in _END.finditer(line):
        end = mark.end()
        if mark.start() == after_item and start == 0 and mark[0] == ".":  # "1." before an item
            continue
        while last <= end:
            first, last = next(enclosed, _NOWHERE)
        if first < end:
            continue
        if _ends_sentence(line, start, mark, sample):
            yield start, end
            start = end
    yield start, len(line)


def _enclosed(line: str) -> Iterator[Span]:
    """Yield what is in pairs of brackets or quotation marks, the outer one of two."""
    last = 0
    for opener in _OPENER.finditer(line):
        pair = _ENCLOSED.match(line, opener.start()) if opener.start() >= last else None
        if pair:
            last = pair.end()
            yield pair.span()


def _ends_sentence(line: str, start: int, mark: re.Match[str], sample: str) -> bool:
    marks, end = line[mark.start() : mark.start(1)], mark.end()
    if end == len(line):
        return True
    if marks[-1:] in _UNSPACED and not line[end].isspace():
        decimal = line[end].isdigit() and marks[-1] not in "。！？"
        return not (_goes_on(line, start, end) if mark[1] else decimal)
    if not line[end].isspace():
        return False
    following = _NEXT.match(line, end)
    after = following[1] if following else ""
    if following and not after and line[following.end() : following.end() + 1] in ",;:":
        return False
    if after[:1].islower() and has_case(after):
        return False
    if marks != ".":
        return True
    before = line[max(start, mark.start() - 2 * _LONGEST) : mark.start()].rstrip()
    word = _BEFORE.split(before[-_LONGEST:])[-1]
    before = before[: len(before) - len(word)]
    rest = line[end : end + _LONGEST].lstrip()
    if _NUMBER.fullmatch(word):
        return _number_ends(word, before, rest, after, sample)
    if _LISTED.match(line[start : start + _LONGEST].lstrip()) and _LISTED.match(rest):
        return True
    return _word_ends(word, before, after)


def _goes_on(line: str, start: int, end: int) -> bool:
    """Return whether a sentence goes on after a quotation that ended, without a space."""
    if _TAKES_UP.match(line, end):
        return True
    begins = line[start : start + _LONGEST].lstrip()[:1] in '「『“"'
    return begins and "\u4e00" <= line[end] <= "\u9fff"  # "...？"他问道


def _word_ends(word: str, before: str, after: str) -> bool:
    """Return whether a word and a full stop end a sentence, by the words around."""
    kind = kind_of(word)
    if word in UNITS and _QUANTITY.search(before):
        return True
    phrase = _PHRASE.search(before) if len(word) < 3 else None
    if kind == "leading" or (phrase and kind_of(f"{phrase[1]}.{word}") == "leading"):
        return False
    if kind == "initial" and word.isupper():
        return len(after) > 1 and _begins_sentence(after) and after.lower() not in PARTICLES
    if kind != "word":
        return _begins_sentence(after)
    return not (after.isdigit() and len(word) <= _UNKNOWN and has_case(word))  # "Anm. 5"


def _number_ends(number: str, before: str, rest: str, after: str, sample: str) -> bool:
    """Return whether a number and a full stop end a sentence: it isn't an ordinal or an item."""
    words = before.split()
    last = number.rpartition(".")[2]
    if not words:  # an item
        return len(last) == 4
    if last.isdigit() and (len(last) == 4 or (last != number and int(last) > 12)):
        return not _DATE.match(rest) and not (writes_ordinals(sample) and is_month(after))
    if is_month(after) and writes_ordinals(sample) is not False:
        return False
    if _begins_sentence(after) or (words[-1].endswith(".") and is_label(words[-1][:-1])):
        return True
    if not has_case(after):
        return bool(after) and not words[-1].rstrip(".").isdigit() and not after.isdigit()
    return writes_ordinals(sample) is False


def _begins_sentence(word: str) -> bool:
    lower = word.lower().replace("’", "'")
    return lower in STARTERS or lower.rstrip("'") in STARTERS
