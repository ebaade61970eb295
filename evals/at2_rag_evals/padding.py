"""Items made larger: their own chunks, and distractors of other items of the same source.

The natural sets have about ten chunks an item; a retriever may return fifty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import ItemSet, count
from at2_rag_evals.seeding import generator


class DistractorPool:
    """The distractors of all examples, by source; distinct by title and text."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._chunks: dict[str, dict[str, Chunk]] = {}
        for example in examples:
            pool = self._chunks.setdefault(example.source, {})
            for chunk, label in zip(example.chunks, example.labels, strict=True):
                if not label:
                    pool.setdefault(normalise(chunk.rendered), chunk)

    def pad(self, example: Example, size: int, *, seed: int) -> Example | None:
        """Return the example with `size` chunks in random order; None if the pool is too small.

        An added chunk equals none of the item's and contains none of its answers, in title or
        text. The draw depends on the pool, `seed`, `size` and the example's id alone.

        Raises:
            ValueError: If the example has more than `size` chunks already.
        """
        missing = size - len(example.chunks)
        if missing < 0:
            raise ValueError(f"the item has {len(example.chunks)} chunks, more than {size}")
        rng = generator(seed, "padding", size, example.source, example.id)
        present = {normalise(chunk.rendered) for chunk in example.chunks}
        answers = findable_answers(example.answers)
        pool = self._chunks.get(example.source, {})
        texts = list(pool)
        added: list[Chunk] = []
        for index in rng.permutation(len(texts)):
            if len(added) == missing:
                break
            text = texts[index]
            if text not in present and not contains_answer(text, answers):
                added.append(pool[text])
        if len(added) < missing:
            return None
        chunks = (*example.chunks, *added)
        labels = (*example.labels, *[False] * missing)
        order = rng.permutation(size)
        return replace(
            example,
            chunks=tuple(chunks[index] for index in order),
            labels=tuple(labels[index] for index in order),
            gold_sentences=(),
        )


def padded_set(natural: ItemSet, pool: DistractorPool, size: int, *, seed: int) -> ItemSet:
    """Pad every item of a set to `size` chunks; leave out and count those that can't be."""
    items: list[Example] = []
    left_out = {source: dict(reasons) for source, reasons in natural.left_out.items()}
    for item in natural.items:
        if len(item.chunks) > size:
            count(left_out, item.source, f"more than {size} chunks")
            continue
        padded = pool.pad(item, size, seed=seed)
        if padded is None:
            count(left_out, item.source, f"too few distractors to pad to {size}")
        else:
            items.append(padded)
    return ItemSet(f"padded to {size} chunks", tuple(items), left_out)
