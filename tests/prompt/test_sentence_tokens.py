"""Which tokens overlap a range of characters."""

from __future__ import annotations

import random
from typing import Any

import pytest

from at2_rag.prompt.encoder import TextEncoder
from at2_rag.prompt.sentence_tokens import tokens_over
from tests.tiny_models import dropping_tokenizer, tiny_tokenizer

PIECES = [*"abc .\n😀é\ud83d\ude00\ud800мR你", "<|im_end|>", "<tool>", "Emma", "👩‍👩‍👧"]


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), dropping_tokenizer()])
def test_tokens_over_a_range_are_those_that_overlap_it(tokenizer: Any) -> None:
    encoder, chance = TextEncoder(tokenizer), random.Random(0)
    for _ in range(300):
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 30)))
        _, tokens = encoder.encode_with_spans(text)
        for _ in range(20):
            first, last = sorted(chance.sample(range(len(text) + 1), 2))
            inside = [i for i, (start, end) in enumerate(tokens) if start < last and end > first]
            assert inside == list(range(*(tokens_over(tokens, (first, last)) or (0, 0))))


def test_few_tokens_are_looked_at() -> None:
    tokens = [(2 * index, 2 * index + 2) for index in range(2**17)]
    for _ in range(20_000):  # would take minutes
        assert tokens_over(tokens, (100_001, 102_000)) == (50_000, 51_000)
