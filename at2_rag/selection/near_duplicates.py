"""Texts that say little new beside others: near-duplicates, and what overlapping windows cover.

A text is compared by its *runs*, every `RUN_WORDS` words in a row without case and punctuation
(w-shingling; A. Broder, "On the Resemblance and Containment of Documents", SEQUENCES 1997).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from at2_rag.selection.novelty import Containment
from at2_rag.text.chunks import Chunk
from at2_rag.text.scripts import length, normalized

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
    runs: tuple[Run, ...]
    telling: frozenset[Run]


@dataclass(frozen=True, slots=True)
class _Known:
    """What those taken hold: their words, their runs, and these with a gap for one of the words."""

    words: set[str] = field(default_factory=set)
    runs: set[Run] = field(default_factory=set)
    gaps: set[tuple[str | None, ...]] = field(default_factory=set)


class NearDuplicates(Containment):
    """Takes a text to say nothing new if it stands in one of those taken, or they cover it.

    They cover a text if they contain at least a given share of its runs, every run with a number, a
    name, a sign or a negation in it, and each of its words; and no word of it stands where they
    have another one. A text with a title is compared only with texts whose titles hold all words
    of it.

    Args:
        chunk_of: Returns the text and title with an index.
        overlap: The share of runs, in (0, 1].
        least_words: A text of fewer words always counts as new.
    """

    def __init__(
        self, chunk_of: Callable[[int], Chunk], overlap: float, *, least_words: int = 1
    ) -> None:
        super().__init__(chunk_of, least_words=least_words)
        self._overlap = overlap
        self._words: dict[int, _Words] = {}
        self._runs_of: dict[Title, _Known] = {}

    def holder(self, index: int) -> int | None:
        """Return which of those taken holds most of a text that says nothing new; else None."""
        if (container := super().holder(index)) is not None:
            return container
        text = self._words_of(index)
        if not text.runs or length(self._chunk_of(index).text) < self._least:
            return None
        known = [one for title, one in self._runs_of.items() if text.title <= title]
        runs = set(text.runs)
        missing = {run for run in runs if not any(run in one.runs for one in known)}
        if len(runs) - len(missing) < self._overlap * len(runs) or text.telling & missing:
            return None
        for run in missing:
            if not all(any(word in one.words for one in known) for word in run):
                return None
            gaps = [run[:1] + (None,) + run[2:]] if len(run) == RUN_WORDS else []
            gaps += [(None, *run[1:])] if run == text.runs[0] else []
            gaps += [(*run[:-1], None)] if run == text.runs[-1] else []
            if any(gap in one.gaps for gap in gaps for one in known):
                return None
        others = [other for other in self._taken if text.title <= self._words_of(other).title]
        return max(others, key=lambda other: len(runs.intersection(self._words_of(other).runs)))

    def take(self, index: int) -> None:
        """Add a text to those taken."""
        super().take(index)
        text = self._words_of(index)
        known = self._runs_of.setdefault(text.title, _Known())
        known.runs.update(text.runs)
        for run in text.runs:
            known.words.update(run)
            known.gaps.update((*run[:i], None, *run[i + 1 :]) for i in range(len(run)))

    def forget(self) -> None:
        """Forget which texts were taken."""
        super().forget()
        self._runs_of.clear()

    def _words_of(self, index: int) -> _Words:
        if index not in self._words:
            self._words[index] = _words_of(self._chunk_of(index))
        return self._words[index]


def _words_of(chunk: Chunk) -> _Words:
    words = _split(chunk.text)
    folded = [word.casefold() for word in words]
    telling = [_is_telling(word) for word in words]
    starts = range(max(1, len(words) - RUN_WORDS + 1)) if words else ()
    runs = [slice(start, start + RUN_WORDS) for start in starts]
    return _Words(
        title=frozenset(word.casefold() for word in _split(chunk.title or "")),
        runs=tuple(tuple(folded[run]) for run in runs),
        telling=frozenset(tuple(folded[run]) for run in runs if any(telling[run])),
    )


def _split(text: str) -> list[str]:
    """Return the words of a text, without what is around them."""
    stripped = (word.strip(_AROUND) for word in normalized(text, "NFC").split())
    return [word for word in stripped if word.strip("-")]


def _is_telling(word: str) -> bool:
    """Tell whether a word is a number, a name, a negation, or not of small letters alone."""
    folded = word.casefold()
    return folded in _NEGATIONS or folded.endswith(("n't", "n’t")) or not _is_small(word)


def _is_small(word: str) -> bool:
    return word.islower() and all(
        letter.isalpha() or letter in "-'’" or unicodedata.combining(letter) for letter in word
    )
