"""What masks keep and leave out of an item: its chunks, or their sentences.

Masks, scores and measures are over an item's *sources*, whichever of the two they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag.prompt.sentence_tokens import sentence_spans_of
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import ItemSet, content_hash, count
from at2_rag_evals.store import hash_of

Unit = Literal["chunk", "sentence"]

MIN_SENTENCES = 4
MAX_SENTENCES = 60


class Source(NamedTuple):
    """A part of an item that a mask keeps or leaves out: characters start to end of a chunk."""

    chunk: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SourcedItem:
    """An item with its sources, in the order of chunks and text, and whether each is gold."""

    example: Example
    unit: Unit
    sources: tuple[Source, ...]
    labels: tuple[bool, ...]

    @property
    def sources_as_chunks(self) -> tuple[Chunk, ...]:
        """Each source as a chunk: the chunks themselves, or sentences under their titles."""
        if self.unit == "chunk":
            return self.example.chunks
        chunks = self.example.chunks
        return tuple(
            Chunk(chunks[index].text[start:end], chunks[index].title)
            for index, start, end in self.sources
        )

    @property
    def key(self) -> str:
        """A SHA-256 over question, chunks and sources: what a mask's reading depends on."""
        content = content_hash(self.example.query, self.example.chunks)
        return content if self.unit == "chunk" else hash_of([content, self.sources])

    def kept(self, mask: npt.NDArray[np.bool_]) -> tuple[Chunk, ...]:
        """Return what a mask over the sources, [S], leaves of the chunks.

        A chunk stays as it is if all of its sources are kept (or it has none), and goes with its
        title if none is. Otherwise its kept sources stay, verbatim and in order, each with the
        white space that follows it.
        """
        kept = []
        for index, chunk in enumerate(self.example.chunks):
            indices = [i for i, source in enumerate(self.sources) if source.chunk == index]
            if mask[indices].all():
                kept.append(chunk)
            elif mask[indices].any():
                starts = [*(self.sources[i].start for i in indices), len(chunk.text)]
                pieces = [
                    chunk.text[start:end]
                    for i, (start, end) in zip(indices, pairwise(starts), strict=True)
                    if mask[i]
                ]
                kept.append(Chunk("".join(pieces).rstrip(), chunk.title))
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class SourcedSet:
    """Items with sources, and data set -> reason -> number of examples left out."""

    items: tuple[SourcedItem, ...]
    left_out: Mapping[str, Mapping[str, int]]


def whole_chunks(example: Example) -> SourcedItem:
    """Return an item whose sources are its chunks."""
    sources = (Source(index, 0, len(chunk.text)) for index, chunk in enumerate(example.chunks))
    return SourcedItem(example, "chunk", tuple(sources), example.labels)


def chunk_sentences(example: Example) -> SourcedItem:
    """Return an item whose sources are the sentences of its chunks.

    Gold are those that overlap a gold sentence; in an item without gold sentences, all of a gold
    chunk.
    """
    sources = tuple(Source(*sentence) for sentence in sentence_spans_of(example.chunks))
    labels = tuple(example.labels[source.chunk] for source in sources)
    if any(example.gold_sentences):
        gold = [example.gold_spans(index) for index in range(len(example.chunks))]
        labels = tuple(
            any(source.start < end and source.end > start for start, end in gold[source.chunk])
            for source in sources
        )
    return SourcedItem(example, "sentence", sources, labels)


def sourced_set(item_set: ItemSet, unit: Unit, *, max_sentences: int = MAX_SENTENCES) -> SourcedSet:
    """Divide items into sources.

    With unit "sentence", items of fewer than `MIN_SENTENCES` or more than `max_sentences` are left
    out and counted: leave-one-out reads the answer once for each sentence.
    """
    if unit == "chunk":
        return SourcedSet(tuple(map(whole_chunks, item_set.items)), item_set.left_out)
    items = []
    left_out = {source: dict(reasons) for source, reasons in item_set.left_out.items()}
    for item in map(chunk_sentences, item_set.items):
        if len(item.sources) < MIN_SENTENCES:
            count(left_out, item.example.source, f"fewer than {MIN_SENTENCES} sentences")
        elif len(item.sources) > max_sentences:
            count(left_out, item.example.source, f"more than {max_sentences} sentences")
        else:
            items.append(item)
    return SourcedSet(tuple(items), left_out)
