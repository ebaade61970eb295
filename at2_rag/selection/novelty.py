"""Which texts say nothing new beside others that are kept, for standing in one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from at2_rag.text.chunks import Chunk
from at2_rag.text.scripts import UNSPACED_CHARACTER, length, normalized
from at2_rag.text.sentences import LINE_BREAK

LONG = 8
"""Words from which a text needn't begin and end with a sentence, or a line, of what it stands in,
and from which it is known whether it has capitals and punctuation at all."""

_MOST_PLACES = 64
"""Places in one text at which another is looked at; repeated letters may have millions."""

_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("’‘ʼ", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff"),  # characters that are not seen
        "…": "...",
    }
)
_NESTED = re.compile(r":[ \t]*\n[ \t]+\S")  # as in Python and YAML, where indents mean something
_PROSE = re.compile(r"[^\W_]|[\s.,;:!?'\"()-]|\.{3}")
_MARKS = re.compile(r"(?<=\w)[.,;:!?]+(?!\S)")
_BEFORE = re.compile(r"(?:[.!?؟۔।]['\")\]]*\s+|[。！？｡]['\")\]」』）]*\s*)['\"(\[「『（]*$")
_AFTER = re.compile(r"(?:\.+['\")\]]*(?!\S)|。)")
_NO_LETTER = re.compile(r"[\W_]+")


class Novelty:
    """Tells which texts say something new beside those taken so far; here every text does."""

    def holder(self, index: int) -> int | None:
        """Return which of those taken says all that a text says; None if it says something new."""
        return None

    def take(self, index: int) -> None:
        """Add a text to those taken."""

    def forget(self) -> None:
        """Forget which texts were taken."""


class Containment(Novelty):
    """Takes a text to say nothing new only if it stands, word for word, in one of those taken.

    White space aside, and how quotes and dashes are set, every character counts: "Pardon,
    impossible to execute" is another text than "Pardon impossible, to execute". Only a text of
    eight words or more that has no capitals (or nothing else), or no punctuation, is compared
    without them. Such a text may start (with a small letter) and end (without a full stop) within a
    sentence of the other one, as windows do. Any other must do so where a sentence or a line of it
    does: "Smoking is allowed" isn't what "No smoking is allowed" says. Titles belong to the texts:
    that of a text must be the other's, or stand before it in the other one.

    Args:
        chunk_of: Returns the text and title with an index.
        least_words: A text of fewer words always counts as new.
    """

    def __init__(self, chunk_of: Callable[[int], Chunk], *, least_words: int = 1) -> None:
        self._chunk_of, self._least = chunk_of, least_words
        self._known: dict[int, _Text] = {}
        self._taken: list[int] = []
        self._letters: list[str] = []  # of all that were taken

    def holder(self, index: int) -> int | None:
        """Return which of those taken a text stands in; None if in none."""
        text = self._of(index)
        if self._least > 1 and length(text.chunk.text) < self._least:
            return None
        letters = _letters(text.chunk.text)
        if not letters or not any(letters in texts for texts in self._letters):
            return None
        for folded, bare in sorted({(False, False), text.lacks}):
            for other in self._taken:
                if self._of(other).says(text, folded, bare):
                    return other
        return None

    def take(self, index: int) -> None:
        """Add a text to those taken."""
        self._taken.append(index)
        # Joined to texts of its length or less, so that none is copied often.
        letters = _letters(self._of(index).chunk.rendered)
        while self._letters and len(self._letters[-1]) <= len(letters):
            letters = f"{self._letters.pop()}\0{letters}"
        self._letters.append(letters)

    def forget(self) -> None:
        """Forget which texts were taken."""
        self._taken.clear()
        self._letters.clear()

    def _of(self, index: int) -> _Text:
        if index not in self._known:
            self._known[index] = _Text(self._chunk_of(index))
        return self._known[index]


def _letters(text: str) -> str:
    """Return a text's letters and digits in a row; a text stands in another only if these do."""
    return _NO_LETTER.sub("", _normal(text).casefold())


def _normal(text: str) -> str:
    return normalized(text, "NFC").translate(_TYPOGRAPHY)


@dataclass(frozen=True, slots=True)
class _Form:
    """A text with one blank for white space, and where its lines start and end."""

    text: str
    starts: frozenset[int]
    ends: frozenset[int]

    needle: str  # the text without the full stop at its end, as it is looked for in others

    def holds(self, other: _Form) -> bool:
        """Tell whether another text stands in this one."""
        needle = other.needle
        stopped, long = needle != other.text, len(needle.split()) >= LONG
        start = -1
        for _ in range(_MOST_PLACES):
            start = self.text.find(needle, start + 1)
            if start < 0:
                return False
            if self._may_start(start, long and needle[0].islower()) and self._may_end(
                start + len(needle), long and not stopped, needle[-1]
            ):
                return True
        return False

    def _may_start(self, start: int, inside: bool) -> bool:
        if start in self.starts or (inside and self.text[start - 1] == " "):
            return True
        return _BEFORE.search(self.text[max(0, start - 9) : start]) is not None

    def _may_end(self, end: int, long: bool, last: str) -> bool:
        if end in self.ends or last in "！？" or _AFTER.match(self.text, end):
            return True
        if last in "!?؟۔।":
            return self.text[end] in " '\")]"
        return long and self.text[end] == " "


class _Text:
    """A text, and its forms as they are needed."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self._forms: dict[tuple[str, bool, bool], _Form] = {}

    @property
    def lacks(self) -> tuple[bool, bool]:
        """Whether it has no capitals (or nothing else), and whether no punctuation."""
        text = self.chunk.text.translate(_TYPOGRAPHY)
        prose = len(text.split()) >= LONG and not _PROSE.sub("", text)
        return (
            prose and (text == text.lower() or text.isupper()),
            prose and not re.search(r"[.,;:!?\"()]", text),
        )

    @property
    def title(self) -> str:
        """The title, as forms are."""
        return _form(self.chunk.title or "").text

    def says(self, other: _Text, folded: bool, bare: bool) -> bool:
        """Tell whether another text stands in this one, both of them in these forms."""
        names = ("rendered", "text")[: 1 + (self.title == other.title)]
        forms = ((self.form(name, folded, bare), other.form(name, folded, bare)) for name in names)
        return any(ours.holds(theirs) for ours, theirs in forms)

    def form(self, name: str, folded: bool, bare: bool) -> _Form:
        key = (name, folded, bare)
        if key not in self._forms:
            self._forms[key] = _form(getattr(self.chunk, name), folded=folded, bare=bare)
        return self._forms[key]


def _form(text: str, *, folded: bool = False, bare: bool = False) -> _Form:
    text = _normal(text)
    text = text.casefold() if folded else text
    text = _MARKS.sub("", text.replace('"', "")) if bare else text
    nested = _NESTED.search(text) is not None
    parts: list[str] = []
    starts, ends = {0}, set()
    size = last = 0
    for piece in re.finditer(r"\S+", text):
        gap = text[last : piece.start()] if parts else ""
        space, broken = " " if gap else "", LINE_BREAK.search(gap) is not None
        if broken:
            ends.add(size)
            if nested:
                space = "\n" + re.split(LINE_BREAK, gap)[-1]
            elif UNSPACED_CHARACTER.match(parts[-1][-1]) and UNSPACED_CHARACTER.match(piece[0]):
                space = ""
            starts.add(size + len(space))
        parts += [space, piece[0]]
        size, last = size + len(space) + len(piece[0]), piece.end()
    text = "".join(parts)
    return _Form(text, frozenset(starts), frozenset({*ends, size}), text.rstrip(".。"))
