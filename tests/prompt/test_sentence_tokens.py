"""Which tokens overlap a range of characters, and with how much work it is found."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, overload

import pytest

from at2_rag.prompt.encoder import TextEncoder
from at2_rag.prompt.sentence_tokens import tokens_over
from tests.tiny_models import dropping_tokenizer, tiny_tokenizer

PIECES = [*"abc .\n😀é\ud83d\ude00\ud800مR你", "<|im_end|>", "<tool>", "Emma", "👩‍👩‍👧"]


class CountingSpans(Sequence[tuple[int, int]]):
    """Spans that count how often one is looked at."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self.spans, self.looks = spans, 0

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, place: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[tuple[int, int]]: ...
    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return self.spans[place]


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), dropping_tokenizer()])
def test_tokens_over_a_range_are_those_that_overlap_it(tokenizer: Any) -> None:
    encoder, chance = TextEncoder(tokenizer), random.Random(0)
    for _ in range(300):
        text = "".join(chance.choices(PIECES, k=chance.randrange(30)))
        _, tokens = encoder.encode_with_spans(text)
        for _ in range(20):
            first, last = sorted(chance.randrange(len(text) + 1) for _ in range(2))
            if first == last:
                continue
            inside = [i for i, (start, end) in enumerate(tokens) if start < last and end > first]
            found = tokens_over(tokens, (first, last))
            assert inside == list(range(*(found or (0, 0))))


def test_few_tokens_are_looked_at() -> None:
    spans = CountingSpans([(2 * place, 2 * place + 2) for place in range(2**14)])
    assert tokens_over(spans, (1001, 3000)) == (500, 1500)
    assert spans.looks <= 2 * 16
