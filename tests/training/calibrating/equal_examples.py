"""Examples whose chunks are all as long, so that each has twins."""

from __future__ import annotations

import random
from dataclasses import replace

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from tests.training.planted_examples import planted_examples


def equal_examples(
    source: str, count: int = 14, *, two_gold: bool = False, sentences: bool = False
) -> list[Example]:
    """Make examples of six chunks with one gold chunk each.

    Args:
        source: The data set they are from.
        count: How many.
        two_gold: Whether a second chunk is gold, too.
        sentences: Whether each chunk has a second sentence, in gold ones one with the answer.
    """
    rng = random.Random(source)
    examples = []
    for example in planted_examples([source], count, chunks=6):
        texts = [" ".join(rng.choices("abcdefgh", k=17)) for _ in example.chunks]
        labels = list(example.labels)
        for index, gold in enumerate(labels):
            if gold:
                texts[index] = example.chunks[index].text
            if sentences:
                texts[index] += f". {example.answers[0] if gold else 'nothing'} is here."
        if two_gold:
            labels[labels.index(False)] = True
        chunks = tuple(map(Chunk, texts))
        examples.append(replace(example, chunks=chunks, labels=tuple(labels)))
    return examples
