"""Each wire shape over a real connection: its answers, and that its scores are the library's."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import httpx
import pytest

from at2_rag import AT2Pruner, PruneOptions
from at2_rag.server.shapes.library import PruneBatchBody, PruneBody
from tests.server.processes import ServerProcess
from tests.server.questions import DOCUMENTS, QUERY

RANKING = {"query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def expected(pruner: AT2Pruner) -> list[tuple[int, float]]:
    """Index and probability of each document, best first, by the library."""
    scored = pruner.score(QUERY, DOCUMENTS)
    ranked = sorted(scored, key=lambda chunk: -chunk.score)
    return [(chunk.index, chunk.probability or 0.0) for chunk in ranked]


def assert_ranked(rows: list[Any], key: str, expected: list[tuple[int, float]]) -> None:
    assert [row["index"] for row in rows] == [index for index, _ in expected]
    assert [row[key] for row in rows] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_cohere_v2(server: ServerProcess, expected: list[tuple[int, float]]) -> None:
    response = server.post("/v2/rerank", {**RANKING, "model": "rerank", "top_n": 3})
    answer = response.json()
    assert_ranked(answer["results"], "relevance_score", expected[:3])
    assert answer["results"][0].keys() == {"index", "relevance_score"}
    assert answer["id"] == response.headers["x-request-id"]
    meta = answer["meta"]
    assert meta["api_version"] == {"version": "2"}
    assert meta["tokens"]["input_tokens"] > 0
    assert float(response.headers["x-at2-answerable"]) == pytest.approx(
        meta["answerable"], abs=1e-6
    )


def test_spans_of_cohere_v2_are_the_likely_sentences(
    server: ServerProcess, pruner: AT2Pruner
) -> None:
    options: Any = {"unit": "sentence", "top_k": 99, "max_overlap": None, "multi_hop": False}
    result = pruner.prune(QUERY, DOCUMENTS, **options)
    likely_ones = sorted(sentence.probability or 0.0 for sentence in result.sentences)
    middle = likely_ones[len(likely_ones) // 2]
    spans = {"mode": "enabled", "threshold": middle - 1e-4, "max_spans": 2}
    answer = server.post("/v2/rerank", {**RANKING, "relevant_spans": spans}).json()
    some = False
    for row in answer["results"]:
        likely = [
            (one.probability or 0.0, DOCUMENTS[one.chunk_index][one.start : one.end])
            for one in result.sentences
            if one.chunk_index == row["index"] and (one.probability or 0.0) >= middle - 1e-4
        ]
        likely = sorted(likely, reverse=True)[:2]
        got = row.get("relevant_spans", [])
        texts = [DOCUMENTS[row["index"]][span["start"] : span["end"]] for span in got]
        assert texts == [text for _, text in likely]
        assert [span["score"] for span in got] == pytest.approx([p for p, _ in likely], abs=1e-6)
        some |= bool(got)
    assert some
    disabled = server.post("/v2/rerank", {**RANKING, "relevant_spans": {"mode": "disabled"}})
    assert all("relevant_spans" not in row for row in disabled.json()["results"])


def test_cohere_v1_and_jina(server: ServerProcess, expected: list[tuple[int, float]]) -> None:
    answer = server.post("/v1/rerank", RANKING).json()
    assert_ranked(answer["results"], "relevance_score", expected)
    assert answer["results"][0]["document"] == {"text": DOCUMENTS[expected[0][0]]}
    assert answer["model"] and answer["usage"]["total_tokens"] > 0
    assert answer["meta"]["api_version"] == {"version": "1"}
    bare = server.post("/v1/rerank", {**RANKING, "return_documents": False}).json()
    assert "document" not in bare["results"][0]


def test_documents_of_cohere_v1_may_be_objects(server: ServerProcess, pruner: AT2Pruner) -> None:
    objects = [{"who": name, "text": text} for name, text in zip("abcde", DOCUMENTS, strict=True)]
    fields = ["who", "text"]
    answer = server.post(
        "/v1/rerank", {"query": QUERY, "documents": objects, "rank_fields": fields}
    ).json()
    joined = [f"{one['who']}\n{one['text']}" for one in objects]
    scores = {chunk.index: chunk.probability for chunk in pruner.score(QUERY, joined)}
    for row in answer["results"]:
        assert row["relevance_score"] == pytest.approx(scores[row["index"]], abs=1e-6)
        assert row["document"] == objects[row["index"]]


def test_tei(server: ServerProcess, pruner: AT2Pruner, expected: list[tuple[int, float]]) -> None:
    answer = server.post("/rerank", {"query": QUERY, "texts": DOCUMENTS}).json()
    assert_ranked(answer, "score", expected)
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    raw = server.post("/rerank", body).json()
    scores = {chunk.index: chunk.score for chunk in pruner.score(QUERY, DOCUMENTS)}
    for row in raw:
        assert row["score"] == pytest.approx(scores[row["index"]], abs=1e-4)
        assert row["text"] == DOCUMENTS[row["index"]]


@pytest.mark.parametrize(
    ("path", "keys"), [("/rerank", {}), ("/v1/rerank", {"truncate_prompt_tokens": 9})]
)
def test_vllm(
    server: ServerProcess, expected: list[tuple[int, float]], path: str, keys: dict[str, Any]
) -> None:
    answer = server.post(path, {**RANKING, **keys, "top_n": 0}).json()
    assert_ranked(answer["results"], "relevance_score", expected)
    assert answer["results"][0]["document"] == {"text": DOCUMENTS[expected[0][0]]}
    assert answer.keys() == {"id", "model", "usage", "results"}


def test_voyage(server: ServerProcess, expected: list[tuple[int, float]]) -> None:
    body = {**RANKING, "top_k": 2, "return_documents": True}
    answer = server.post("/v1/rerank", body).json()
    assert_ranked(answer["data"], "relevance_score", expected[:2])
    assert answer["data"][0]["document"] == DOCUMENTS[expected[0][0]]
    assert answer["object"] == "list"


def test_documents_are_cut_where_the_request_says_so(
    server: ServerProcess, pruner: AT2Pruner
) -> None:
    long = "Ada wrote. " * 20
    body = {"query": QUERY, "documents": [long, "Bela."], "max_tokens_per_doc": 12}
    answer = server.post("/v2/rerank", body).json()
    assert answer["meta"]["warnings"] == ["Of document 0 only the first 12 tokens were read."]
    tokens = pruner.scoring_model.prompts.text_spans(long)
    scored = pruner.score(QUERY, [long[: tokens[11][1]], "Bela."])
    got = {row["index"]: row["relevance_score"] for row in answer["results"]}
    assert got == pytest.approx({one.index: one.probability for one in scored}, abs=1e-6)


def without_timings(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "timings"}


def assert_alike(got: Any, expected: Any) -> None:
    """Compare two values, numbers within rounding."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for name in expected:
            assert_alike(got[name], expected[name])
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, abs=1e-4)
    else:
        assert got == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 2},
        {"unit": "sentence", "max_tokens": 40},
        {"max_missed": 0.5},
        {"top_k": 1, "protect": ["Bela wrote", "Emil left."]},
    ],
)
def test_prune_says_all_that_a_result_says(
    server: ServerProcess, pruner: AT2Pruner, options: Any
) -> None:
    chunks: list[Any] = [
        {"text": text, "id": f"d{number}", "metadata": {"n": [number]}, "retrieval_score": number}
        for number, text in enumerate(DOCUMENTS)
    ]
    got = server.post("/v1/prune", {"query": QUERY, "chunks": chunks, **options}).json()
    result = pruner.prune(QUERY, chunks, **options)
    assert_alike(without_timings(got), without_timings(json.loads(result.to_json())))
    assert got["timings"]["total"] > 0
    if "protect" in options:
        assert {1, 4} <= {chunk["index"] for chunk in got["kept"]}


def test_prune_reads_a_history(server: ServerProcess, pruner: AT2Pruner) -> None:
    body = {"query": "Who wrote it?", "chunks": DOCUMENTS, "history": ["What is the letter?"]}
    got = server.post("/v1/prune", body).json()
    result = pruner.prune("Who wrote it?", DOCUMENTS, history=["What is the letter?"])
    assert got["notes"] == list(result.notes) != []


def test_several_questions_are_streamed(server: ServerProcess, pruner: AT2Pruner) -> None:
    questions = [QUERY, "Who left?", "Where are storms?"]
    body = {"requests": [{"query": one, "chunks": DOCUMENTS} for one in questions], "top_k": 1}
    response = server.post("/v1/prune", body)
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = {line["index"]: line["result"] for line in map(json.loads, response.text.splitlines())}
    for index, question in enumerate(questions):
        expected = json.loads(pruner.prune(question, DOCUMENTS, top_k=1).to_json())
        assert_alike(without_timings(lines[index]), without_timings(expected))


def test_no_chunks_are_an_empty_result(server: ServerProcess) -> None:
    got = server.post("/v1/prune", {"query": QUERY, "chunks": []}).json()
    assert (got["kept"], got["dropped"], got["answerable"]) == ([], [], None)


def test_index_fills_the_cache(server: ServerProcess) -> None:
    text = "Never seen before: a lighthouse."
    assert server.post("/v1/index", {"chunks": [text]}).json() == {"chunks": 1}
    before = cache_reads(server, "miss")
    server.post("/v1/prune", {"query": QUERY, "chunks": [text]})
    assert cache_reads(server, "miss") == before


def cache_reads(server: ServerProcess, outcome: str) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    name = f'at2_rag_cache_reads_total{{outcome="{outcome}"}} '
    return next(float(line[len(name) :]) for line in page.splitlines() if line.startswith(name))


def test_without_weights_for_answers_nothing_is_attributed(server: ServerProcess) -> None:
    body = {"query": QUERY, "chunks": DOCUMENTS, "answer": "Ada."}
    response = server.post("/v1/attribute", body)
    assert response.status_code == 501
    assert "default model" in response.json()["message"]


def test_every_option_is_one_of_prune() -> None:
    for body in (PruneBody, PruneBatchBody):
        assert {option.name for option in fields(PruneOptions)} < body.model_fields.keys()
