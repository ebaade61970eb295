"""Unmodified clients of other services against a real server process.

Each is skipped where it isn't installed; `pip install ".[clients]"` brings those that are light.
LiteLLM is heavy (200 MB), and is left out there.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from at2_rag import AT2Pruner
from tests.server.processes import ServerProcess
from tests.server.questions import DOCUMENTS, QUERY

KEY = "any-key"  # which this server doesn't ask for
COHERE_7 = "AT2_RAG_COHERE_7"
"""Variable that names a folder with cohere 7, which can't be installed beside cohere 5."""


@pytest.fixture
def url(server: ServerProcess) -> str:
    return server.url


@pytest.fixture(scope="module")
def expected(pruner: AT2Pruner) -> list[tuple[int, float]]:
    ranked = sorted(pruner.score(QUERY, DOCUMENTS), key=lambda chunk: -chunk.score)
    return [(chunk.index, chunk.probability or 0.0) for chunk in ranked[:3]]


def assert_ranked(got: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [index for index, _ in got] == [index for index, _ in expected]
    assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=1e-6)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere(url: str, expected: list[tuple[int, float]], version: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = getattr(cohere, version)(api_key=KEY, base_url=url)
    answer = client.rerank(model="rerank", query=QUERY, documents=DOCUMENTS, top_n=3)
    assert_ranked([(row.index, row.relevance_score) for row in answer.results], expected)
    with pytest.raises(cohere.errors.UnprocessableEntityError, match="top_n is 0"):
        client.rerank(model="rerank", query=QUERY, documents=DOCUMENTS, top_n=0)
    with pytest.raises(cohere.errors.NotFoundError, match="model is 'other'"):
        client.rerank(model="other", query=QUERY, documents=DOCUMENTS)


_COHERE_7 = """
import sys
import cohere
url, key, query, *documents = sys.argv[1:]
client = cohere.ClientV2(api_key=key, base_url=url)
spans = {"mode": "enabled", "threshold": 0.0}
answer = client.rerank(
    model="rerank", query=query, documents=documents, top_n=3, relevant_spans=spans
)
for row in answer.results:
    span = row.relevant_spans[0]
    print(row.index, row.relevance_score, span.start, span.end, span.score)
"""


@pytest.mark.skipif(COHERE_7 not in os.environ, reason=f"{COHERE_7} names no folder")
def test_cohere_7_with_spans(url: str, expected: list[tuple[int, float]]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _COHERE_7, url, KEY, QUERY, *DOCUMENTS],
        env={**os.environ, "PYTHONPATH": os.environ[COHERE_7]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert_ranked([(int(row[0]), float(row[1])) for row in rows], expected)
    assert all(0 <= int(start) < int(end) for _, _, start, end, _ in rows)


def test_voyage(url: str, expected: list[tuple[int, float]]) -> None:
    voyageai = pytest.importorskip("voyageai")
    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank", top_k=3)
    assert_ranked([(row.index, row.relevance_score) for row in answer.results], expected)
    assert answer.results[0].document == DOCUMENTS[expected[0][0]]
    assert answer.total_tokens > 0
    with pytest.raises(voyageai.error.MalformedRequestError, match="top_k is -1"):
        client.rerank(QUERY, DOCUMENTS, model="rerank", top_k=-1)


def _nodes() -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]


def _ranked_nodes(nodes: list[Any]) -> list[tuple[int, float]]:
    return [(DOCUMENTS.index(node.node.text), node.score) for node in nodes]


def test_llama_index_cohere(url: str, expected: list[tuple[int, float]]) -> None:
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    ranker = module.CohereRerank(top_n=3, model="rerank", api_key=KEY, base_url=url)
    assert_ranked(_ranked_nodes(ranker.postprocess_nodes(_nodes(), query_str=QUERY)), expected)


def test_llama_index_tei(url: str, expected: list[tuple[int, float]]) -> None:
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    ranker = module.TextEmbeddingInference(top_n=3, base_url=url, auth_token=f"Bearer {KEY}")
    assert_ranked(_ranked_nodes(ranker.postprocess_nodes(_nodes(), query_str=QUERY)), expected)


def test_langchain_cohere(url: str, expected: list[tuple[int, float]]) -> None:
    module = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    ranker = module.CohereRerank(model="rerank", top_n=3, cohere_api_key=KEY, base_url=url)
    kept = ranker.compress_documents([Document(text) for text in DOCUMENTS], QUERY)
    got = [(DOCUMENTS.index(one.page_content), one.metadata["relevance_score"]) for one in kept]
    assert_ranked(got, expected)


@pytest.mark.parametrize("base", ["", "/v1"])
def test_haystack_vllm(url: str, expected: list[tuple[int, float]], base: str) -> None:
    module = pytest.importorskip("haystack_integrations.components.rankers.vllm")
    from haystack import Document
    from haystack.utils import Secret

    key = Secret.from_token(KEY)
    ranker = module.VLLMRanker(model="rerank", api_base_url=url + base, api_key=key, top_k=3)
    documents = [Document(content=text) for text in DOCUMENTS]
    for answer in (
        ranker.run(QUERY, documents),
        asyncio.run(ranker.run_async(QUERY, documents)),
    ):
        got = [(DOCUMENTS.index(one.content), one.score) for one in answer["documents"]]
        assert_ranked(got, expected)


def test_haystack_tei(url: str, expected: list[tuple[int, float]]) -> None:
    module = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    from haystack import Document
    from haystack.utils import Secret

    ranker = module.HuggingFaceTEIRanker(url=url, top_k=3, token=Secret.from_token(KEY))
    documents = [Document(content=text) for text in DOCUMENTS]
    left = module.TruncationDirection.LEFT
    for answer in (
        ranker.run(QUERY, documents),
        asyncio.run(ranker.run_async(QUERY, documents, truncation_direction=left)),
    ):
        got = [(DOCUMENTS.index(one.content), one.score) for one in answer["documents"]]
        assert_ranked(got, expected)
    with pytest.raises(RuntimeError, match="query is blank"):
        ranker.run(" ", documents)


@pytest.mark.parametrize("provider", ["cohere", "hosted_vllm", "jina_ai", "voyage"])
def test_litellm(
    url: str, expected: list[tuple[int, float]], provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # fetches nothing
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=f"{provider}/rerank",
        query=QUERY,
        documents=DOCUMENTS,
        top_n=3,
        api_key=KEY,
        api_base=url + ("/v2/rerank" if provider == "cohere" else ""),
    )
    got = [(row["index"], row["relevance_score"]) for row in answer.results]
    assert_ranked(got, expected)
