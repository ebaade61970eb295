"""Pairs of examples that differ in whether their chunks hold the answer, and in nothing else.

In both as many chunks are exchanged for chunks of other examples, of about the same lengths and
from the same source: in one the gold chunks, in the other chunks that aren't gold.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from at2_rag.data.answers import normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.samples import evidence_test

LENGTH_TOLERANCE = 0.1  # share of its words by which a replacement may differ in length


@dataclass(frozen=True, slots=True)
class Twins:
    """An example with and without its evidence."""

    answerable: Example  # some chunks that aren't gold exchanged
    unanswerable: Example  # the gold chunks exchanged; no label is true


class TwinMaker:
    """Makes twins of examples with chunks of other examples of their sources."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._pools: dict[str, dict[str, Chunk]] = defaultdict(dict)  # by normalised text
        for example in examples:
            pool = self._pools[example.source]
            for chunk in example.chunks:
                pool.setdefault(normalise(chunk.rendered), chunk)

    def twins(self, example: Example, *, seed: int) -> Twins | None:
        """Return an example's twins, drawn by its source's chunks, the seed and the example alone.

        None if the example has no gold chunk, or more of them than others; if one of the others is
        evidence; or if its source has too few replacements of about the same length.
        """
        gold = [index for index, label in enumerate(example.labels) if label]
        others = [index for index, label in enumerate(example.labels) if not label]
        if not gold or len(others) < len(gold):
            return None
        is_evidence = evidence_test(example)
        texts = [normalise(chunk.rendered) for chunk in example.chunks]
        if any(is_evidence(texts[index], example.chunks[index]) for index in others):
            return None
        name = f"twins/{example.source}/{example.id}".encode(errors="surrogatepass")
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        exchanged = sorted(rng.permutation(others)[: len(gold)].tolist())
        pool = list(self._pools[example.source].items())
        drawn = (
            pool[number]
            for number in rng.permutation(len(pool))
            if pool[number][0] not in texts and not is_evidence(*pool[number])
        )
        order = [*exchanged, *gold]
        replacements = _exchange([_words(texts[index]) for index in order], drawn)
        if replacements is None:
            return None
        by_index = dict(zip(order, replacements, strict=True))
        unanswerable = _replaced(example, {index: by_index[index] for index in gold})
        return Twins(
            _replaced(example, {index: by_index[index] for index in exchanged}),
            replace(unanswerable, labels=(False,) * len(example.labels), unanswerable=True),
        )


def _words(text: str) -> int:
    return len(text.split())


def _exchange(lengths: Sequence[int], pool: Iterator[tuple[str, Chunk]]) -> list[Chunk] | None:
    """Return for each length the pool's first unused chunk about as long; None if one has none."""
    unused: list[tuple[str, Chunk]] = []  # what was drawn from the pool
    replacements = []
    for words in lengths:
        number = 0
        while True:
            if number == len(unused):
                if (drawn := next(pool, None)) is None:
                    return None
                unused.append(drawn)
            if abs(_words(unused[number][0]) - words) <= LENGTH_TOLERANCE * words:
                break
            number += 1
        replacements.append(unused.pop(number)[1])
    return replacements


def _replaced(example: Example, replacements: Mapping[int, Chunk]) -> Example:
    chunks = tuple(replacements.get(index, chunk) for index, chunk in enumerate(example.chunks))
    return replace(example, chunks=chunks, gold_sentences=())
