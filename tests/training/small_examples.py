"""Small examples of several sources, and tiny models to read them with."""

from __future__ import annotations

import random
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from tests.tiny_models import tiny_model, tiny_tokenizer

DEPTH = 2
"""Layers of the scoring model."""


def make_examples(sources: str = "abc", each: int = 4) -> list[Example]:
    """Make examples of two, three, ... chunks, the first of which is gold; a letter a source."""
    rng = random.Random(0)
    words = "river bridge novel harbour town sea mill glass owl lamp Emma Austen".split()

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(2, 12)))

    return [
        Example(
            id=str(number),
            source=source,
            query=f"what is the {rng.choice(words)}?",
            chunks=tuple(Chunk(text(), title=rng.choice([None, "T"])) for _ in range(2 + number)),
            labels=(True, *[False] * (1 + number)),
        )
        for source in sources
        for number in range(each)
    ]


def scoring_model(depth: int = DEPTH, **overrides: Any) -> ScoringModel:
    return ScoringModel(tiny_model(**overrides), tiny_tokenizer(), depth=depth)


def answer_model(**overrides: Any) -> AnswerModel:
    return AnswerModel(tiny_model(**overrides), tiny_tokenizer())
