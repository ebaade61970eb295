"""Characters of scripts, their normal forms, and how many words a text has in any of them."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

QUESTION_MARKS = "?？؟⁇⁈⁉፧\u037e\u055e"
"""Marks of questions, for a character class; Greek also writes them as semicolons."""

UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan; Burmese; Khmer
    "\u2e80-\u2fff\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b"  # parts and signs of Han
    "\u3040-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f"  # kana, bopomofo, Han
    "\U00020000-\U0003ffff"
)
"""Letters and signs of scripts without spaces between words, for a character class."""

UNSPACED_CHARACTER = re.compile(rf"[{UNSPACED}\u3000-\u303f\uff00-\uffef]")
"""Characters of scripts without spaces between words, and their punctuation."""


SYLLABLE = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]"
)
"""Characters that stand for a syllable or more: kana, Han, Hangul."""

_PART = re.compile(r"[\w\s]*[^\w\s]{1,64}|[\w\s]+")  # accents are neither letters nor space


def normalized(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """Return a text in a normal form of Unicode; a run of accents in parts of 64.

    `unicodedata` brings the accents of a letter into order, in quadratic time.
    """
    if text.isascii():
        return text
    return "".join(unicodedata.normalize(form, part) for part in _PART.findall(text))


def length(text: str) -> int:
    """Return the number of words of a text; two characters of a script without spaces are one."""
    rest, unspaced = UNSPACED_CHARACTER.subn(" ", text)
    return len(rest.split()) + unspaced // 2
