"""What masks keep and leave out of an item: its chunks, or their sentences.

Masks, scores and measures are over an item's *sources*, whichever of the two they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag.prompt.sentence_tokens import sentence_places
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import ItemSet, content_hash, count
from at2_rag_evals.store import hash_of

Unit = Literal["chunk", "sentence"]

MIN_SENTENCES = 4
MAX_SENTENCES = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A part of an item that a mask keeps or leaves out.

    Attributes:
        chunk: The index of its chunk.
        start: Where it starts in the chunk's text, in characters.
        end: Where it ends, exclusive.
    """

    chunk: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SourcedItem:
    """An item with its sources, by `whole_chunks` or `chunk_sentences`.

    Attributes:
        example: The item.
        unit: What the sources are.
        sources: The sources, in the order of the chunks and their text.
        labels: For each source, whether it is gold.
    """

    example: Example
    unit: Unit
    sources: tuple[Source, ...]
    labels: tuple[bool, ...]

    @property
    def id(self) -> str:
        """The example's identifier within its data set."""
        return self.example.id

    @property
    def source(self) -> str:
        """The data set the example comes from."""
        return self.example.source

    @property
    def query(self) -> str:
        """The question."""
        return self.example.query

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The retrieved chunks, whole."""
        return self.example.chunks

    @property
    def answers(self) -> tuple[str, ...]:
        """Reference answers; may be empty."""
        return self.example.answers

    @property
    def sources_as_chunks(self) -> tuple[Chunk, ...]:
        """Each source as a chunk: the chunks themselves, or sentences under their titles."""
        if self.unit == "chunk":
            return self.chunks
        return tuple(
            Chunk(chunk.text[source.start : source.end], chunk.title)
            for source in self.sources
            for chunk in [self.chunks[source.chunk]]
        )

    @property
    def key(self) -> str:
        """A SHA-256 over question, chunks and sources: what a mask's reading depends on."""
        content = content_hash(self.query, self.chunks)
        if self.unit == "chunk":
            return content
        return hash_of(
            [content, [[source.chunk, source.start, source.end] for source in self.sources]]
        )

    def kept(self, mask: npt.NDArray[np.bool_]) -> tuple[Chunk, ...]:
        """Return what a mask leaves of the chunks.

        A chunk stays as it is if all of its sources are kept, and goes with its title if none is.
        Otherwise its kept sources stay, verbatim and in order, each with the white space that
        follows it. A chunk without sources is never left out.

        Args:
            mask: [S] bool over the sources.
        """
        kept = []
        for index, chunk in enumerate(self.chunks):
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
    """Items to judge systems on, and how many were left out.

    Attributes:
        items: The items, in the files' order.
        left_out: Data set -> reason -> number of examples left out for it.
    """

    items: tuple[SourcedItem, ...]
    left_out: Mapping[str, Mapping[str, int]]


def whole_chunks(example: Example) -> SourcedItem:
    """Return an item whose sources are its chunks."""
    sources = (Source(index, 0, len(chunk.text)) for index, chunk in enumerate(example.chunks))
    return SourcedItem(example, "chunk", tuple(sources), example.labels)


def chunk_sentences(example: Example) -> SourcedItem:
    """Return an item whose sources are the sentences of its chunks.

    Gold is what overlaps a gold sentence of its chunk; in an item without gold sentences, every
    sentence of a gold chunk.
    """
    sources = tuple(Source(*sentence) for sentence in sentence_places(example.chunks))
    if any(example.gold_sentences):
        gold = [example.gold_spans(index) for index in range(len(example.chunks))]
        labels = tuple(
            any(source.start < end and source.end > start for start, end in gold[source.chunk])
            for source in sources
        )
    else:
        labels = tuple(example.labels[source.chunk] for source in sources)
    return SourcedItem(example, "sentence", sources, labels)


def sourced_set(item_set: ItemSet, unit: Unit, *, max_sentences: int = MAX_SENTENCES) -> SourcedSet:
    """Give items their sources.

    Left out, and counted, are items with fewer than `MIN_SENTENCES` sentences, or more than
    `max_sentences`: leaving one out reads the answer once a sentence.

    Args:
        item_set: The items.
        unit: What their sources are.
        max_sentences: Most sentences of an item; without meaning for chunks.
    """
    if unit == "chunk":
        return SourcedSet(tuple(map(whole_chunks, item_set.items)), item_set.left_out)
    items = []
    left_out = {source: dict(reasons) for source, reasons in item_set.left_out.items()}
    for item in map(chunk_sentences, item_set.items):
        if len(item.sources) < MIN_SENTENCES:
            count(left_out, item.source, f"fewer than {MIN_SENTENCES} sentences")
        elif len(item.sources) > max_sentences:
            count(left_out, item.source, f"more than {max_sentences} sentences")
        else:
            items.append(item)
    return SourcedSet(tuple(items), left_out)
