"""What adapters make of calibrated head weights and of the retriever's ranks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from at2_rag import AT2Pruner
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.text.chunks import Prior
from tests.integrations.frameworks import PASSAGES, Framework
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "Who wrote the letter from the island?"


@pytest.fixture(scope="module")
def calibrated() -> AT2Pruner:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    weights = random_weights(model, tokenizer, "together", "apart")
    weights = dataclasses.replace(
        weights,
        calibration=Calibration(-weights.weight, 0.25, (0.3, 0.9, 0.1, 1.0), (0.2, 0.2, 1.5)),
        prior_weight=0.8,
        cosine_weight=30.0,
        multi_hop=MultiHop(2 * weights.weight[0], 0.2, (0.2, 0.7, 0.1, 0.3)),
    )
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


@pytest.mark.parametrize("multi_hop", [None, False])
def test_a_limit_on_missed_chunks_asks_again_as_the_pruner_does(
    framework: Framework, items: list[Any], calibrated: AT2Pruner, multi_hop: bool | None
) -> None:
    chunks = [passage.chunk for passage in PASSAGES]
    expected = calibrated.prune(QUERY, chunks, max_missed=0.0, multi_hop=multi_hop).kept
    once = calibrated.prune(QUERY, chunks, max_missed=0.0, multi_hop=False).kept
    assert (expected == once) is (multi_hop is False)
    adapter = framework.adapter(pruner=calibrated, max_missed=0.0, multi_hop=multi_hop)
    kept = framework.prune(adapter, QUERY, items)
    assert [framework.id(item) for item in kept] == [PASSAGES[c.index].id for c in expected]
