"""What is made of a question and its chunks before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from at2_rag.options import PruneOptions
from at2_rag.pruning.request import ContextFormat, Request, make_request
from at2_rag.text.chunks import Chunk
from tests.tiny_weights import tiny_pruner

QUERY = "Who wrote the novel Emma in 1815?"
CHUNKS = [Chunk(f"{QUERY} Please help."), Chunk("Emma was written by Jane Austen.")]


def request(**options: Any) -> Request:
    context = ContextFormat(lambda text: len(text.split()), " ", "")
    return make_request(QUERY, CHUNKS, PruneOptions(**options), tiny_pruner().head_weights, context)


@pytest.mark.parametrize("least", [14, 15, 16])
def test_echoes_are_looked_for_only_where_chunks_are_read(least: int) -> None:
    skipped = request(skip_below_tokens=least)
    assert skipped.tokens == 15  # words, counted by hand
    echo = Chunk(" " * len(QUERY) + " Please help.")
    assert list(skipped.read_chunks) == (CHUNKS if least >= 15 else [echo, CHUNKS[1]])
    assert len(skipped.notes) == (least < 15)
    assert request(skip_below_tokens=least, max_tokens=9).read_chunks[0] == echo
    assert request(top_k=1).read_chunks[0] == echo
