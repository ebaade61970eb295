"""`AT2Pruner` over a tiny random model: scores, what is kept, and what comes back.

Loading and weights are in `test_pruner_weights.py`, failures in `test_pruner_failures.py`, odd
input in `test_bad_input.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner, Chunk, PruneResult
from at2_rag.attention import SpanAttention
from at2_rag.chunk_states import encode_prefix, read_apart, read_together, ready_states
from at2_rag.chunks import as_chunk
from at2_rag.features import Pass, Quantity
from at2_rag.head_weights import HeadWeights
from at2_rag.prompt import WINDOW_OVERLAP, WINDOW_TOKENS
from at2_rag.scoring_model import ScoringModel
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "who wrote the novel Emma?"
CHUNKS: tuple[Any, ...] = (
    "The river flows through the old town to the sea.",
    {
        "text": "Jane Austen wrote Emma in 1815.",
        "title": "Emma",
        "id": 7,
        "metadata": {"page": [3, 4]},
        "retriever": {"score": 0.25},
    },
    Chunk("The bridge was opened in 1932.", title="Bridge", id="b", metadata={"tags": {"x"}}),
    "It spans the harbour; what is it called?",
    Chunk("Emma"),
)
RENDERED = (
    "The river flows through the old town to the sea.",
    "Emma\nJane Austen wrote Emma in 1815.",
    "Bridge\nThe bridge was opened in 1932.",
    "It spans the harbour; what is it called?",
    "Emma",
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def pruner(model: Any) -> AT2Pruner:
    return AT2Pruner(model=model, tokenizer=tiny_tokenizer(), head_weights="uniform")


def scores_by_hand(
    model: Any, weights: HeadWeights, query: str, chunks: Sequence[Any]
) -> list[float]:
    """Weights times features of each source, the largest for each chunk."""
    scorer = ScoringModel(model, tiny_tokenizer(), depth=weights.layers)
    views = [as_chunk(chunk, index) for index, chunk in enumerate(chunks)]
    attention: dict[Pass, SpanAttention] = {}
    if weights.reading == "joint":
        layout = scorer.prompts.joint(query, views)
        attention["joint"] = scorer.read_joint([layout])[0]
    else:
        layout = scorer.prompts.independent(query, views)
        states = ready_states(scorer, encode_prefix(scorer), layout)
        attention["together"] = read_together(scorer, states, layout)
        attention["apart"] = read_apart(scorer, states, layout)
    totals = [weights.bias] * len(layout.source_ids)
    for place, name in enumerate(weights.spec.passes):
        values = getattr(attention[name], weights.spec.quantity.removeprefix("log_m"), None)
        values = attention[name].log_ratio if values is None else values
        for (layer, head), weight in np.ndenumerate(weights.weight[place]):
            for source in range(len(totals)):
                value = float(values[layer, head, source])
                totals[source] += float(weight) * value
    by_chunk: dict[int, list[float]] = {}
    for owner, total in zip(layout.owners, totals, strict=True):
        by_chunk.setdefault(owner, []).append(total)
    return [max(by_chunk[index]) for index in range(len(chunks))]
