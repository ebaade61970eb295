"""Examples whose chunks are all as long, so that each has twins."""

from __future__ import annotations

import random
from dataclasses import replace

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from tests.training.planted_examples import planted_examples


def equal_examples(source: str, count: int = 10, *, chunks: int = 6) -> list[Example]:
    """Make examples of chunks of two sentences; two chunks are gold, one has the answer."""
    rng = random.Random(source)
    examples = []
    for example in planted_examples([source], count, chunks=chunks):
        gold = example.labels.index(True)
        texts = [
            f"{' '.join(rng.choices('abcdefgh', k=17))}. nothing is here." for _ in range(chunks)
        ]
        texts[gold] = f"{example.chunks[gold].text}. {example.answers[0]} is here."
        labels = list(example.labels)
        labels[labels.index(False)] = True
        scored = tuple(
            Chunk(text, retrieval_score=0.5 * label - 1e-3 * len(text))
            for text, label in zip(texts, labels, strict=True)
        )
        examples.append(replace(example, chunks=scored, labels=tuple(labels)))
    return examples
