"""Texts that say nothing new beside others: duplicates, near-duplicates, overlapping windows.

A text is compared by its *runs*, every `RUN_WORDS` words in a row without case and punctuation
(w-shingling; A. Broder, "On the Resemblance and Containment of Documents", SEQUENCES 1997). It is
redundant beside others if they contain at least a given share of its runs between them, and if no
word of it that they lack is a number, a name or a negation: "revenue in 2019" beside "revenue in
2020" is no duplicate, however long both are. Nor is a text under a title that says what they don't.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

RUN_WORDS = 3
"""Words of a run; a text of fewer is one run."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_NEGATIONS = frozenset(["never", "no", "nobody", "none", "nor", "not", "nothing", "without"])

Run = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Words:
    """What is compared of a text.

    Attributes:
        runs: Its runs; empty for a text without words.
        words: The different words of text and title.
        telling: Those of them that matter even alone: all of the title's, and some of the text's.
    """

    runs: frozenset[Run]
    words: frozenset[str]
    telling: frozenset[str]


class TextNovelty:
    """Tells which of some texts say something new beside those taken so far.

    Args:
        texts: The texts.
        titles: Their titles; None for a text without.
        overlap: Share of a text's runs, in (0, 1], from which on it says nothing new if those taken
            contain them.
    """

    def __init__(self, texts: Sequence[str], titles: Sequence[str | None], overlap: float) -> None:
        self._texts, self._titles, self._overlap = texts, titles, overlap
        self._known: dict[int, _Words] = {}
        self._taken: list[int] = []
        self._runs: Counter[Run] = Counter()
        self._words: Counter[str] = Counter()

    def is_new(self, index: int) -> bool:
        """Tell whether a text says something new; one without words counts as new."""
        own = self._of(index)
        shared = sum(self._runs[run] > 0 for run in own.runs)
        if not own.runs or shared < self._overlap * len(own.runs):
            return True
        return any(not self._words[word] for word in own.telling)

    def take(self, index: int) -> None:
        """Add a text to those taken."""
        own = self._of(index)
        self._runs.update(own.runs)
        self._words.update(own.words)
        self._taken.append(index)

    def give_back(self, count: int) -> None:
        """Take back the last so many."""
        for _ in range(count):
            own = self._of(self._taken.pop())
            self._runs.subtract(own.runs)
            self._words.subtract(own.words)

    def _of(self, index: int) -> _Words:
        if index not in self._known:
            self._known[index] = _words_of(self._texts[index], self._titles[index] or "")
        return self._known[index]


def _words_of(text: str, title: str) -> _Words:
    titled = frozenset(word.casefold() for word in _WORD.findall(title))
    given = _WORD.findall(text)
    folded = [word.casefold() for word in given]
    starts = range(max(1, len(folded) - RUN_WORDS + 1)) if folded else ()
    return _Words(
        runs=frozenset(tuple(folded[start : start + RUN_WORDS]) for start in starts),
        words=titled.union(folded),
        telling=titled.union(
            fold for word, fold in zip(given, folded, strict=True) if _is_telling(word, fold)
        ),
    )


def _is_telling(word: str, folded: str) -> bool:
    """Tell whether a word is a number, a name, in a script without small letters, or a negation."""
    return (
        folded in _NEGATIONS
        or folded.endswith(("n't", "n’t"))
        or not word.islower()
        or any(map(str.isdigit, word))
    )
