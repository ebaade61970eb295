"""Examples whose gold chunks even a random model can tell: they are the long ones."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk

_WORDS = "river bridge novel harbour town sea mill glass owl lamp tower field".split()


def planted_examples(
    sources: Sequence[str] = ("novels", "seas"), each: int = 8, *, chunks: int = 5
) -> list[Example]:
    """Make so many examples of each source, with one gold chunk each; no two have the same one.

    The gold chunk alone holds the answer, which is the same everywhere, so that no example's
    gold chunk is ever another's distractor.
    """

    def text(rng: random.Random, words: int) -> str:
        return " ".join(rng.choices(_WORDS, k=words))

    made = []
    for source in sources:
        rng = random.Random(source)
        for number in range(each):
            gold = rng.randrange(chunks)
            made.append(
                Example(
                    id=str(number),
                    source=source,
                    query=f"who wrote of the {rng.choice(_WORDS)}?",
                    chunks=tuple(
                        Chunk(f"Austen {text(rng, 16)}")
                        if index == gold
                        else Chunk(text(rng, rng.randint(2, 5)))
                        for index in range(chunks)
                    ),
                    labels=tuple(index == gold for index in range(chunks)),
                    answers=("Austen",),
                )
            )
    return made


def taught_examples(sources: Sequence[str] = ("novels", "seas")) -> list[Example]:
    """Make the planted examples with scores by a teacher, who likes long chunks."""
    return [
        replace(one, teacher_scores=tuple(float(len(chunk.text)) for chunk in one.chunks))
        for one in planted_examples(sources)
    ]


def write_examples(path: Path, examples: Sequence[Example], *, labelled: bool = True) -> Path:
    """Write examples as training reads them, gzipped if the name ends in `.gz`.

    Without `labelled` neither labels nor answers are written.
    """
    records = [
        {
            "id": example.id,
            "source": example.source,
            "question": example.query,
            **({"answers": list(example.answers)} if labelled else {}),
            "chunks": [
                {
                    **({"title": chunk.title} if chunk.title else {}),
                    "text": chunk.text,
                    **({"is_gold": label} if labelled else {}),
                    **({} if score is None else {"teacher_score": score}),
                }
                for chunk, label, score in zip_longest(
                    example.chunks, example.labels, example.teacher_scores
                )
            ],
        }
        for example in examples
    ]
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
