"""What adapters make of calibrated head weights and of the retriever's ranks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from at2_rag import AT2Pruner
from at2_rag.model.loading import LoadedModel
from at2_rag.text.chunks import Prior
from tests.integrations.frameworks import PASSAGES, Framework
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

QUERY = "Who wrote the letter from the island?"


@pytest.fixture(scope="module")
def calibrated() -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = calibrated_weights(model, tokenizer, cosine_weight=30.0)
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights)


@pytest.mark.parametrize("prior", ["score", "cosine"])
def test_the_retrievers_ranks_weigh_in(
    framework: Framework, items: list[Any], calibrated: AT2Pruner, prior: Prior
) -> None:
    scores = [(len(passage.title or "") - index) / 100 for index, passage in enumerate(PASSAGES)]
    scored = [framework.with_score(item, score) for item, score in zip(items, scores, strict=True)]
    chunks = [
        dataclasses.replace(passage.chunk, retrieval_score=score)
        for passage, score in zip(PASSAGES, scores, strict=True)
    ]
    expected = calibrated.prune(QUERY, chunks, top_k=4, prior=prior).kept
    adapter = framework.adapter(pruner=calibrated, top_n=4, prior=prior)
    kept = framework.prune(adapter, QUERY, scored)
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected]
    relevance = pytest.approx([chunk.relevance for chunk in expected])
    assert [framework.score(item) for item in kept] == relevance


def test_without_a_limit_calibrated_weights_decide(
    framework: Framework, items: list[Any], calibrated: AT2Pruner
) -> None:
    expected = calibrated.prune(QUERY, [passage.chunk for passage in PASSAGES])
    assert len(expected.kept) != 3
    kept = framework.prune(framework.adapter(pruner=calibrated), QUERY, items)
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected.kept]
    assert all(framework.metadata(item)["answerable"] == expected.answerable for item in kept)
