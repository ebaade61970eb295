"""Pairs of examples that differ in whether their chunks hold the answer, and in nothing else.

Both have as many chunks as the example they are made from, of about the same lengths and from the
same source, and as many of them are exchanged for chunks of other examples: in one the gold chunks,
in the other chunks that aren't gold.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example, passage_keys
from at2_rag.text.chunks import Chunk

LENGTH_TOLERANCE = 0.1
"""How much longer or shorter a chunk may be than the one it stands for, as a share of its words."""


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
                own = _Replacement.of(chunk)
                pool.setdefault(own.text, own)

    def twins(self, example: Example, *, seed: int) -> Twins | None:
        """Return an example's twins; None if it hasn't any.

        So it is with an example without gold chunks, with more gold chunks than others, with an
        answer (a yes or no can't be looked for) or a gold passage's text in one of the others, or
        with too few chunks in its source that could stand for them: such a one equals none of the
        example's own, holds neither of the two and is within `LENGTH_TOLERANCE` of the length of
        what it stands for. The draw depends on the source's chunks, the seed and the example alone.
        """
        gold = [place for place, label in enumerate(example.labels) if label]
        others = [place for place, label in enumerate(example.labels) if not label]
        if not gold or len(others) < len(gold):
            return None
        answers, passages = findable_answers(example.answers), passage_keys(example.gold)
        rest = [_Replacement.of(example.chunks[place]) for place in others]
        if any(_tells(own, answers, passages) for own in rest):
            return None
        name = f"twins/{example.source}/{example.id}".encode(errors="surrogatepass")
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        exchanged = sorted(rng.permutation(others)[: len(gold)].tolist())
        pool = self._pools[example.source]
        texts = list(pool)
        own = {normalise(chunk.rendered) for chunk in example.chunks}
        drawn = (
            pool[texts[place]]
            for place in rng.permutation(len(texts))
            if texts[place] not in own and not _tells(pool[texts[place]], answers, passages)
        )
        found = _exchange(example.chunks, [*exchanged, *gold], drawn)
        if found is None:
            return None
        answerable, unanswerable = (
            tuple(
                found[place] if place in places else chunk
                for place, chunk in enumerate(example.chunks)
            )
            for places in (exchanged, gold)
        )
        return Twins(
            replace(example, chunks=answerable, gold_sentences=()),
            replace(
                example,
                chunks=unanswerable,
                labels=(False,) * len(unanswerable),
                gold_sentences=(),
                unanswerable=True,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Replacement:
    """A chunk that may stand for another.

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


def _tells(chunk: _Replacement, answers: frozenset[str], passages: frozenset[str]) -> bool:
    """Tell whether a chunk holds an answer, or a gold passage's text."""
    return not passages.isdisjoint(chunk.keys) or contains_answer(chunk.text, answers)


def _exchange(
    chunks: Sequence[Chunk], places: Sequence[int], pool: Iterator[_Replacement]
) -> dict[int, Chunk] | None:
    """Return for each place the first chunk of the pool that is as long; None if one has none."""
    left: list[_Replacement] = []
    found: dict[int, Chunk] = {}
    for place in places:
        words = len(normalise(chunks[place].rendered).split())
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
        found[place] = left.pop(number).chunk
    return found
