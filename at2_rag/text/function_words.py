"""Function words: what they attend to, or what repeats them, says little of a text."""

from __future__ import annotations

import re

from at2_rag.text.sentences import Span

_WORD = re.compile(r"(\w+)(?:['’]\w+)*")

FUNCTION_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his "
    "how i if in is it its may my not of on or our she should that the their there they this to "
    "us was we were what when where which who whom whose why will with would you your".split()
)
"""English ones, question words among them."""


def content_spans(text: str) -> list[Span]:
    """Return the range of characters of each word that isn't a function word.

    The list is English: in another language all words are content words, but for those that are
    spelt like one of it.
    """
    return [
        match.span() for match in _WORD.finditer(text) if match[1].casefold() not in FUNCTION_WORDS
    ]
