"""What a pruner does by default an adapter does as well."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from at2_rag import AT2Pruner, InputError, LoadedModel, PruneOptions
from at2_rag.pruner import PrunerSettings
from langchain_at2_rag import AT2DocumentCompressor
from llama_index_at2_rag import AT2NodePostprocessor
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote Emma?"
TEXTS = ["Jane Austen wrote Emma. The river flows to the sea.", "The bridge was opened in 1932."]


def pruner(**settings: Any) -> AT2Pruner:
    options: PrunerSettings = {"head_weights": "uniform", **settings}  # type: ignore[typeddict-item]
    return AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), **options)


def test_nodes_are_pruned_by_sentence_whoever_says_so() -> None:
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"a": "x"})) for text in TEXTS]
    by_pruner = AT2NodePostprocessor(pruner=pruner(options=PruneOptions(unit="sentence", top_k=1)))
    by_adapter = AT2NodePostprocessor(pruner=pruner(), unit="sentence", top_n=1)
    [expected] = by_adapter.postprocess_nodes(nodes, query_str=QUERY)
    [kept] = by_pruner.postprocess_nodes(nodes, query_str=QUERY)
    assert kept.text == expected.text and kept.text in " ".join(TEXTS)
    assert kept.metadata == expected.metadata


def test_documents_have_their_retrievers_scores_whoever_asks_for_them() -> None:
    documents = [Document(text, metadata={"score": 2.0 - i}) for i, text in enumerate(TEXTS)]
    options = PruneOptions(top_k=2, prior="score")
    random = random_weights(tiny_model(), tiny_tokenizer(), "together")
    weights = replace(random, prior_weight=9.0)
    by_pruner = AT2DocumentCompressor(pruner=tiny_pruner(weights, options=options))
    plain = tiny_pruner(weights, options=PruneOptions(top_k=2))
    by_adapter = AT2DocumentCompressor(pruner=plain, prior="score")
    expected = by_adapter.compress_documents(documents, QUERY)
    assert by_pruner.compress_documents(documents, QUERY) == expected
    without = AT2DocumentCompressor(pruner=plain).compress_documents(documents, QUERY)
    assert without != expected, "scores were read"
    assert by_adapter.effective_options(plain).top_k == 2


def test_settings_that_were_written_and_read_leave_the_pruners_defaults() -> None:
    by_sentence = pruner(options=PruneOptions(unit="sentence", top_k=3))
    adapters = (AT2NodePostprocessor(top_n=1), AT2DocumentCompressor(top_n=1))
    for adapter in adapters:
        for dumped in (adapter.model_dump(), json.loads(adapter.model_dump_json())):
            dumped.pop("class_name", None)
            again = type(adapter)(**dumped, pruner=by_sentence)
            effective = again.effective_options(by_sentence)
            assert (effective.unit, effective.top_k) == ("sentence", 1)
        assert pickle.loads(pickle.dumps(adapter)).overrides(by_sentence) == {"top_k": 1}


def test_scoring_counts_no_tokens() -> None:
    def counter(text: str) -> int:
        raise ZeroDivisionError

    assert len(pruner(token_counter=counter).score(QUERY, TEXTS)) == 2


def test_options_of_another_kind_or_name_are_refused() -> None:
    with pytest.raises(InputError, match="options is a dict; pass PruneOptions"):
        pruner(options={"top_k": 1})
    with pytest.raises(TypeError, match="there is no option 'keep_mass'; there are top_k, "):
        pruner().prune(QUERY, TEXTS, keep_mass=0.5)  # type: ignore[call-arg]
