"""Which chunks of a corpus are evidence for a question."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from at2_rag.data.answers import findable_answers, normalise
from at2_rag_evals.corpus.documents import Corpus
from at2_rag_evals.corpus.questions import Question

SAME_WORDS = 0.9
"""Share of the words of two chunks together that near-identical ones have in common."""


@dataclass(frozen=True, slots=True)
class Gold:
    """The gold chunks of a question, by index, and its quotes and ids that the corpus lacks."""

    chunks: frozenset[int]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Document:
    """A document's normalised words between blanks, and where each chunk with words begins."""

    text: str
    chunks: tuple[int, ...]
    starts: tuple[int, ...]

    def holding(self, words: str) -> Iterator[int]:
        """Yield the chunks that hold normalised words, or a part of them where a chunk ends."""
        at = self.text.find(f" {words} ")
        while at >= 0:
            first = bisect_right(self.starts, at + 1) - 1
            last = bisect_right(self.starts, at + len(words)) - 1
            yield from self.chunks[first : last + 1]
            at = self.text.find(f" {words} ", at + 1)


class GoldFinder:
    """Finds gold chunks in a corpus.

    `quotes` make every chunk gold that holds one, compared by their normalised words, and if a
    quote goes on in the next chunk both. `gold` makes gold the chunks with these ids, and of
    documents with these names the chunks that hold an answer, or all of them if none does; beside
    `quotes` it only says where they count. With neither, every chunk that holds an answer is gold.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._words = [normalise(chunk.text).split() for chunk in corpus.chunks]
        self._by_id = {chunk.id: index for index, chunk in enumerate(corpus.chunks)}
        groups = groupby(range(len(corpus.chunks)), key=corpus.documents.__getitem__)
        self._by_document = {name: tuple(indices) for name, indices in groups}
        self._documents = [self._document(indices) for indices in self._by_document.values()]

    def find(self, question: Question) -> Gold:
        """Return the gold chunks of a question; those of an unanswerable one are none."""
        if question.unanswerable:
            return Gold(frozenset())
        quotes = {quote: self._holding([quote]) for quote in question.quotes}
        answers = self._holding(question.answers)
        unknown = [
            name
            for name in question.gold
            if name not in self._by_id and name not in self._by_document
        ]
        missing = (*(quote for quote, chunks in quotes.items() if not chunks), *unknown)
        if question.quotes:
            gold = frozenset[int]().union(*quotes.values())
            if question.gold:
                gold &= frozenset[int]().union(*map(self._named, question.gold))
        elif question.gold:
            narrowed = (self._narrowed(name, answers) for name in question.gold)
            gold = frozenset[int]().union(*narrowed)
        else:
            gold = answers
        return Gold(gold, missing)

    def near_identical(self, index: int, other: int) -> bool:
        """Return whether two chunks say the same: nine tenths of their words, and all numbers.

        Numbers are words with a digit: "version 1.2" isn't "version 1.3".
        """
        ours, theirs = Counter(self._words[index]), Counter(self._words[other])
        if _numbers(ours) != _numbers(theirs):
            return False
        either = (ours | theirs).total()
        return either > 0 and (ours & theirs).total() >= SAME_WORDS * either

    def _document(self, indices: Sequence[int]) -> _Document:
        text, chunks, starts = " ", [], []
        for index in indices:
            if words := " ".join(self._words[index]):
                chunks.append(index)
                starts.append(len(text))
                text += f"{words} "
        return _Document(text, tuple(chunks), tuple(starts))

    def _holding(self, texts: Iterable[str]) -> frozenset[int]:
        return frozenset(
            index
            for words in findable_answers(texts)
            for document in self._documents
            for index in document.holding(words)
        )

    def _named(self, name: str) -> frozenset[int]:
        chunk = self._by_id.get(name)
        return frozenset(self._by_document.get(name, ()) if chunk is None else [chunk])

    def _narrowed(self, name: str, answers: frozenset[int]) -> frozenset[int]:
        chunks = self._named(name)
        return chunks if name in self._by_id else chunks & answers or chunks


def _numbers(words: Counter[str]) -> Counter[str]:
    return Counter({word: n for word, n in words.items() if any(map(str.isdigit, word))})
