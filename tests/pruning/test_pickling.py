"""Pickled by name: pruner, attributor, cache and adapters, for spawned workers and joblib."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from at2_rag import AT2Attributor, AT2Pruner, ChunkCache, HeadWeights, InputError
from langchain_at2_rag import AT2DocumentCompressor
from llama_index_at2_rag import AT2NodePostprocessor
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS = ["Jane Austen wrote Emma in 1815.", "The river flows.", "It spans the harbour."]
DOCUMENTS = [Document(page_content=text) for text in CHUNKS]
NODES = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in CHUNKS]


def letters(text: str) -> int:
    return len(text)


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=0.5)


@pytest.fixture
def pruner(weights: HeadWeights, model_folder: Path, tmp_path: Path) -> AT2Pruner:
    """A pruner none of whose settings is the default."""
    settings: dict[str, Any] = {
        "separator": "\n-\n",
        "ellipsis": " [...] ",
        "on_error": "keep_all",
        "max_pending": 7,
    }
    cache = ChunkCache(tmp_path / "states", max_memory_bytes=12345)
    return AT2Pruner.from_pretrained(
        model_folder,
        dtype="float32",
        device="cpu",
        head_weights=weights,
        token_counter=letters,
        chunk_cache=cache,
        **settings,
    )


def scores(pruner: AT2Pruner) -> list[float]:
    return [one.score for one in pruner.score(QUERY, CHUNKS)]


def work(pruner: AT2Pruner, attributor: AT2Attributor, *adapters: Any) -> list[Any]:
    """Use everything; called in another process, too."""
    compressor, postprocessor = adapters
    documents = compressor.compress_documents(DOCUMENTS, QUERY)
    nodes = postprocessor.postprocess_nodes(copy.deepcopy(NODES), query_str=QUERY)
    attribution = attributor.attribute(QUERY, CHUNKS, "Jane Austen")
    return [
        scores(pruner),
        pruner.prune(QUERY, CHUNKS, top_k=2).to_json(),
        [one.score for one in attribution.chunks],
        [document.page_content for document in documents],
        [one.page_content for one in compressor.invoke({"query": QUERY, "documents": DOCUMENTS})],
        [node.text for node in nodes],
    ]


def without_seconds(results: list[Any]) -> list[Any]:
    result = json.loads(results[1])
    result.pop("timings", None)
    return [results[0], result, *results[2:]]


def test_a_spawned_process_computes_the_same(pruner: AT2Pruner, model_folder: Path) -> None:
    attributor = AT2Attributor.from_pretrained(model_folder, head_weights="uniform")
    things = (
        pruner,
        attributor,
        AT2DocumentCompressor(pruner=pruner, top_n=2),
        AT2NodePostprocessor(pruner=pruner, top_n=2),
    )
    expected = without_seconds(work(*things))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert without_seconds(pool.submit(work, *things).result(timeout=100)) == expected


def test_all_settings_survive_and_equal_pickles_are_loaded_once(
    pruner: AT2Pruner, tmp_path: Path
) -> None:
    pickled = pickle.dumps(pruner)
    assert len(pickled) < 50_000  # no model in it
    again = pickle.loads(pickled)
    assert again is not pruner and pickle.loads(pickled) is again
    assert again.prune(QUERY, CHUNKS).tokens_before == pruner.prune(QUERY, CHUNKS).tokens_before
    assert (again.separator, again.ellipsis, again.on_error) == ("\n-\n", " [...] ", "keep_all")
    assert again.options == pruner.options and again.calibrated
    assert scores(again) == scores(pruner)
    assert pickle.dumps(again) == pickled
    assert copy.copy(pruner) is pruner


def test_caches_are_their_folder_or_empty(pruner: AT2Pruner, tmp_path: Path) -> None:
    scores(pruner)
    kept = ChunkCache(tmp_path / "states")
    assert len(kept) == 3
    again: ChunkCache = pickle.loads(pickle.dumps(kept))
    assert set(again) == set(kept)
    memory = ChunkCache(max_memory_bytes=10**6)
    memory["0" * 64] = kept[next(iter(kept))]
    empty: ChunkCache = pickle.loads(pickle.dumps(memory))
    assert len(memory) == 1 and len(empty) == 0
    empty["0" * 64] = kept[next(iter(kept))]
    assert empty.counts.memory_bytes == memory.counts.memory_bytes


def test_models_and_counters_that_cannot_be_pickled_are_named(
    weights: HeadWeights, model_folder: Path
) -> None:
    unnamed = tiny_pruner(weights)
    unpicklable = AT2Pruner.from_pretrained(
        model_folder, head_weights=weights, dtype="float32", token_counter=lambda text: len(text)
    )
    things: list[Callable[[AT2Pruner], Any]] = [
        lambda pruner: pruner,
        lambda pruner: AT2DocumentCompressor(pruner=pruner),
        lambda pruner: AT2NodePostprocessor(pruner=pruner),
    ]
    for thing in things:
        with pytest.raises(InputError, match="passed as an object.*save_pretrained"):
            pickle.dumps(thing(unnamed))
        with pytest.raises(InputError, match="token_counter can't be pickled .*lambda"):
            pickle.dumps(thing(unpicklable))
    node_pruner = AT2NodePostprocessor(pruner=unnamed)
    with pytest.raises(InputError):
        pickle.dumps(node_pruner)
    assert node_pruner.pruner is unnamed  # LlamaIndex takes out what can't be pickled


def test_adapters_of_the_default_model_are_pickled_without_it() -> None:
    for adapter in (AT2DocumentCompressor(top_n=2), AT2NodePostprocessor(top_n=2)):
        again = pickle.loads(pickle.dumps(adapter))
        assert again.model_dump() == adapter.model_dump() and again.pruner is None


def test_joblibs_pickler_takes_them(pruner: AT2Pruner) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    runnable = pickle.loads(cloudpickle.dumps(AT2DocumentCompressor(pruner=pruner, top_n=1)))
    score = pickle.loads(cloudpickle.dumps(lambda: scores(pruner)))
    assert score() == scores(pruner)
    assert len(runnable.invoke({"query": QUERY, "documents": DOCUMENTS})) == 1
