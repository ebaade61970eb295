"""Pairs of examples that differ in whether their chunks hold the answer, and in nothing else.

Both have as many chunks as the example they are made from, of about the same lengths and from the
same source, and as many of them are exchanged for chunks of other examples: in one the gold chunks,
in the other chunks that aren't gold.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, passage_keys
from at2_rag.text.chunks import Chunk

LENGTH_TOLERANCE = 0.1
"""How much longer or shorter a chunk may be than the one it replaces, as a share of its words."""


@dataclass(frozen=True, slots=True)
class Twins:
    """An example with and without its evidence.

    Attributes:
        answerable: Some chunks that aren't gold exchanged, the gold ones as they were.
        unanswerable: The gold chunks exchanged, the others as they were; no label is true.
    """

    answerable: Example
    unanswerable: Example


class TwinMaker:
    """Makes twins of examples with chunks of other examples of their sources.

    Args:
        examples: Whose chunks serve as replacements, distinct by title and text.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        self._pools: dict[str, dict[str, _Replacement]] = defaultdict(dict)
        for example in examples:
            pool = self._pools[example.source]
            for chunk in example.chunks:
                replacement = _Replacement.of(chunk)
                pool.setdefault(replacement.text, replacement)

    def twins(self, example: Example, *, seed: int) -> Twins | None:
        """Return an example's twins, drawn by its source's chunks, the seed and the example alone.

        Returns:
            None if the example has no gold chunk, or more of them than others; if one of the others
            holds an answer (a yes or no can't be looked for) or a gold passage's text; or if its
            source has too few replacements: chunks that aren't the example's, hold neither, and are
            within `LENGTH_TOLERANCE` of the length of what they replace.
        """
        gold = [index for index, label in enumerate(example.labels) if label]
        others = [index for index, label in enumerate(example.labels) if not label]
        if not gold or len(others) < len(gold):
            return None
        answers, passages = findable_answers(example.answers), passage_keys(example.gold)
        if any(_Replacement.of(example.chunks[index]).holds(answers, passages) for index in others):
            return None
        name = f"twins/{example.source}/{example.id}".encode(errors="surrogatepass")
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        exchanged = sorted(rng.permutation(others)[: len(gold)].tolist())
        pool = list(self._pools[example.source].values())
        present = {normalise(chunk.rendered) for chunk in example.chunks}
        drawn = (
            pool[number]
            for number in rng.permutation(len(pool))
            if pool[number].text not in present and not pool[number].holds(answers, passages)
        )
        replacements = _exchange(example.chunks, [*exchanged, *gold], drawn)
        if replacements is None:
            return None
        unanswerable = _replaced(example, gold, replacements)
        return Twins(
            _replaced(example, exchanged, replacements),
            replace(unanswerable, labels=(False,) * len(example.labels), unanswerable=True),
        )


@dataclass(frozen=True, slots=True)
class _Replacement:
    """A chunk that may replace another.

    Attributes:
        chunk: The chunk.
        text: It, normalised.
        keys: Its passage's key.
        words: Its length.
    """

    chunk: Chunk
    text: str
    keys: frozenset[str]
    words: int

    @classmethod
    def of(cls, chunk: Chunk) -> _Replacement:
        text = normalise(chunk.rendered)
        return cls(chunk, text, passage_keys([chunk]), len(text.split()))

    def holds(self, answers: frozenset[str], passages: frozenset[str]) -> bool:
        """Tell whether the chunk holds an answer, or a gold passage's text."""
        return not passages.isdisjoint(self.keys) or contains_answer(self.text, answers)


def _exchange(
    chunks: Sequence[Chunk], indices: Sequence[int], pool: Iterator[_Replacement]
) -> dict[int, Chunk] | None:
    """Return for each index the first chunk of the pool that is as long; None if one has none."""
    left: list[_Replacement] = []
    replacements: dict[int, Chunk] = {}
    for index in indices:
        words = len(normalise(chunks[index].rendered).split())
        number = 0
        while True:
            if number == len(left):
                drawn = next(pool, None)
                if drawn is None:
                    return None
                left.append(drawn)
            if abs(left[number].words - words) <= LENGTH_TOLERANCE * words:
                break
            number += 1
        replacements[index] = left.pop(number).chunk
    return replacements


def _replaced(
    example: Example, indices: Collection[int], replacements: Mapping[int, Chunk]
) -> Example:
    chunks = tuple(
        replacements[index] if index in indices else chunk
        for index, chunk in enumerate(example.chunks)
    )
    return replace(example, chunks=chunks, gold_sentences=())
