"""Texts that say nothing new beside others: duplicates, near-duplicates, overlapping windows.

A text is compared by its *runs*, every `RUN_WORDS` words in a row without case and punctuation
(w-shingling; A. Broder, "On the Resemblance and Containment of Documents", SEQUENCES 1997). It is
redundant beside others if they contain at least a given share of its runs between them, and every
run with a number, a name, a sign or a negation in it: "revenue in 2019" beside "revenue in 2020" is
no duplicate, however long both are. A text with a title is compared only with texts whose titles
hold all words of it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

RUN_WORDS = 3
"""Words of a run; a text of fewer is one run."""

_AROUND = ".,;:!?…\"'“”„‘’«»‹›()[]{}*_`|/\\–—·•¿¡。，、；：！？「」『』（）"
"""Stripped from both ends of a word; signs before numbers and as in "C++" stay."""

_NEGATIONS = frozenset(["never", "no", "nobody", "none", "nor", "not", "nothing", "without"])

Run = tuple[str, ...]
Title = frozenset[str]


@dataclass(frozen=True, slots=True)
class _Words:
    """The runs of words of a text; it is redundant only if all of its `telling` runs are known."""

    title: Title
    words: int
    runs: frozenset[Run]
    telling: frozenset[Run]


class Novelty:
    """Tells which texts say something new beside those taken so far; here every text does."""

    def is_new(self, index: int) -> bool:
        """Tell whether a text says something new."""
        return True

    def take(self, index: int) -> None:
        """Add a text to those taken."""

    def give_back(self, count: int) -> None:
        """Take back the last so many."""


class TextNovelty(Novelty):
    """Tells which of some texts say something new beside those taken so far.

    Args:
        texts: The texts.
        titles: Their titles; None for a text without.
        overlap: A text says nothing new if those taken contain at least this share of its runs, in
            (0, 1].
        least_words: A text of fewer words always counts as new.
    """

    def __init__(
        self,
        texts: Sequence[str],
        titles: Sequence[str | None],
        overlap: float,
        *,
        least_words: int = 1,
    ) -> None:
        self._texts, self._titles, self._overlap = texts, titles, overlap
        self._least = max(1, least_words)
        self._known: dict[int, _Words] = {}
        self._taken: list[int] = []
        self._runs: dict[Title, Counter[Run]] = {}

    def is_new(self, index: int) -> bool:
        """Tell whether those taken hold too little of a text."""
        text = self._of(index)
        if text.words < self._least:
            return True
        held = [runs for title, runs in self._runs.items() if text.title <= title]
        known = {run for run in text.runs if any(runs[run] > 0 for runs in held)}
        return len(known) < self._overlap * len(text.runs) or not text.telling <= known

    def take(self, index: int) -> None:
        """Add a text to those taken."""
        text = self._of(index)
        self._runs.setdefault(text.title, Counter()).update(text.runs)
        self._taken.append(index)

    def give_back(self, count: int) -> None:
        """Take back the last so many."""
        for _ in range(count):
            text = self._of(self._taken.pop())
            self._runs[text.title].subtract(text.runs)

    def _of(self, index: int) -> _Words:
        if index not in self._known:
            self._known[index] = _words_of(self._texts[index], self._titles[index] or "")
        return self._known[index]


def _words_of(text: str, title: str) -> _Words:
    words = _split(text)
    folded = [word.casefold() for word in words]
    telling = [_is_telling(word) for word in words]
    starts = range(max(1, len(words) - RUN_WORDS + 1)) if words else ()
    runs = [slice(start, start + RUN_WORDS) for start in starts]
    return _Words(
        title=frozenset(word.casefold() for word in _split(title)),
        words=len(words),
        runs=frozenset(tuple(folded[run]) for run in runs),
        telling=frozenset(tuple(folded[run]) for run in runs if any(telling[run])),
    )


def _split(text: str) -> list[str]:
    """Return the words of a text, without what is around them."""
    stripped = (word.strip(_AROUND) for word in unicodedata.normalize("NFC", text).split())
    return [word for word in stripped if word.strip("-")]


def _is_telling(word: str) -> bool:
    """Tell whether a word is a number, a name, a negation, or not of small letters alone."""
    folded = word.casefold()
    return folded in _NEGATIONS or folded.endswith(("n't", "n’t")) or not _is_small(word)


def _is_small(word: str) -> bool:
    return word.islower() and all(
        letter.isalpha() or letter in "-'’" or unicodedata.combining(letter) for letter in word
    )
