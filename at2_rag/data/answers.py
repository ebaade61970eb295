"""Reference answers: normalisation and containment."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_YES_NO = frozenset({"yes", "no"})


def normalise(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation, English articles and extra blanks.

    The normalisation of P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension
    of Text", EMNLP 2016.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def findable_answers(answers: Iterable[str]) -> frozenset[str]:
    """Return the normalised answers that can be searched for in a text: not blank, yes or no."""
    return frozenset(map(normalise, answers)) - _YES_NO - {""}


def contains_answer(normalised_text: str, answers: Iterable[str]) -> bool:
    """Return whether a normalised text has one of the normalised answers as whole words."""
    padded = f" {normalised_text} "
    return any(f" {answer} " in padded for answer in answers)
