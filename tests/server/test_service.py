"""The app in this process, over a tiny model: what is checked, counted, logged and traced."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from at2_rag import AT2Attributor, InputError, PruneOptions
from at2_rag.model.loading import LoadedModel
from at2_rag.server.app import make_app
from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.server.service import Service
from at2_rag.server.settings import ServerSettings
from at2_rag.server.shapes.ranking import parsed
from at2_rag.server.shapes.vllm import VllmBody
from tests.server.questions import DOCUMENTS, QUERY
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights, tiny_pruner

SECRET = "the vault's number"


def service(**settings: Any) -> Service:
    """Return a service whose token counter can't count texts with a secret."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    pruner = tiny_pruner(
        calibrated_weights(model, tokenizer, cosine_weight=1.0),
        model,
        tokenizer,
        token_counter=lambda text: -1 if SECRET in text else len(text),
    )
    attributor = AT2Attributor(LoadedModel(model, tokenizer), head_weights="uniform")
    return Service(pruner, attributor, ServerSettings(**settings))


@asynccontextmanager
async def client_of(served: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(served)

    async def with_service(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"service": served}}, receive, send)

    transport = httpx.ASGITransport(with_service)
    async with (
        served.running(),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=120) as client,
    ):
        yield client


async def test_a_job_counts_and_checks_what_is_read_for_it() -> None:
    made, options = service(), PruneOptions(top_k=1)
    asked = ("Who wrote it?", DOCUMENTS)
    plain, after = await made.jobs([(*asked, []), (*asked, ["What is the letter?"])], options)
    question = made.pruner.scoring_model.prompts.text_spans("What is the letter? ")
    copies, rest = divmod(after.tokens - plain.tokens, len(question))
    spec = made.pruner.head_weights.spec
    assert spec.passes == ("together", "apart")
    assert (copies, rest) == (1 + len(DOCUMENTS), 0)
    with pytest.raises(InputError, match=r"history\[0\]"):
        await made.jobs([(*asked, []), (*asked, [{"content": 5}])], options)
    scored: list[Any] = [{"text": "a", "retrieval_score": 5.0}]
    with pytest.raises(InputError, match="prior='cosine'"):
        await made.jobs([(QUERY, scored, [])], options.override(prior="cosine"))


async def test_tokens_of_what_is_read_beside_the_batches_are_bounded() -> None:
    made = service(max_request_tokens=130)
    asked: dict[str, Any] = {"span": None, "unit": "chunk", "max_sources": 1, "min_share": 0.0}
    attributed, _ = await made.attribute(QUERY, ["Ada."], "Ada wrote it.", **asked)
    assert len(attributed.chunks) == 1
    await made.index(["Ada wrote."])
    for work in (made.attribute(QUERY, DOCUMENTS, "Ada.", **asked), made.index(DOCUMENTS * 9)):
        with pytest.raises(RequestError, match="at most 130 are taken") as refused:
            await work
        assert refused.value.kind is ErrorKind.INVALID_INPUT
    [job] = await made.jobs([(QUERY, ["Ada."], [])], PruneOptions(top_k=1))
    full = service(max_queue_tokens=1)
    waits = full.submit([job])  # the queue takes it, and nobody reads
    for work in (full.attribute(QUERY, ["Ada."], "Ada.", **asked), full.index(["Ada."])):
        with pytest.raises(RequestError, match="tokens wait or are read") as refused:
            await work
        assert refused.value.kind is ErrorKind.BUSY
    waits[0].cancel()


async def test_each_streamed_question_has_a_span_and_its_failure_is_logged(
    spans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [["Ada wrote."], [f"It is {SECRET}."], ["Bela left.", "Cleo wrote."]]
    body = {"requests": [{"query": QUERY, "chunks": one} for one in chunks], "top_k": 1}
    with caplog.at_level(logging.INFO, "at2_rag.server.access"):
        async with client_of(service()) as client:
            response = await client.post("/v1/prune", json=body)
    lines = {line["index"]: line for line in map(json.loads, response.text.splitlines())}
    assert sorted(lines) == [0, 1, 2]
    assert "result" in lines[0] and "result" in lines[2]
    assert lines[1]["error"] == "failed" and SECRET not in json.dumps(lines[1])
    [failure] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failure.getMessage() == "a question failed"
    assert failure.exc_info and failure.exc_info[0] is not None
    assert failure.exc_info[0].__name__ == "TokenCounterError"
    finished = spans.get_finished_spans()
    assert not any(SECRET in span.to_json() for span in finished)
    finished = [span for span in finished if span.name == "rerank"]  # FastAPI has some, too
    assert [span.attributes["openinference.span.kind"] for span in finished] == ["RERANKER"] * 3
    assert sorted(span.status.status_code.name for span in finished) == ["ERROR", "UNSET", "UNSET"]
    assert sorted(span.attributes.get("reranker.top_k", 0) for span in finished) == [0, 1, 1]


async def test_questions_that_take_too_long_are_answered_one_by_one(spans: Any) -> None:
    served = service(timeout=2.0)
    app = make_app(served)
    questions = [{"query": QUERY, "chunks": ["Ada wrote."]}] * 3

    async def with_service(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"service": served}}, receive, send)

    transport = httpx.ASGITransport(with_service)  # and nobody reads the queue
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        response = await client.post("/v1/prune", json={"requests": questions}, timeout=60)
    if response.status_code == 504:
        pytest.skip("preparing the questions took longer on this busy machine")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert sorted((line["index"], line["error"]) for line in lines) == [
        (0, "timeout"),
        (1, "timeout"),
        (2, "timeout"),
    ]
    finished = [span for span in spans.get_finished_spans() if span.name == "rerank"]
    assert [span.status.description for span in finished] == ["TimeoutError"] * 3
    assert served.metrics.registry.get_sample_value("at2_rag_queue_questions") == 0


@pytest.mark.parametrize(("priority", "counts_as"), [(-5, 0), (7, 7), (10**6, 999)])
def test_priorities_of_vllm_are_those_of_cohere(priority: int, counts_as: int) -> None:
    body = parsed(VllmBody, {"query": "?", "documents": ["a"], "priority": priority})
    assert body.ranking().priority == counts_as


async def test_an_answer_comes_in_parts_of_which_the_last_is_empty() -> None:
    served, sent = service(), []
    app = make_app(served)
    body = {"query": QUERY, "documents": [{"text": "Ada wrote.", "note": "x" * 200_000}]}
    request = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    received = iter([request])

    async def receive() -> Any:
        for message in received:
            return message
        await asyncio.sleep(600)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/rerank",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": {"service": served},
    }
    async with served.running():
        await app(scope, receive, send)
    start, *parts = sent
    assert start["status"] == 200
    assert max(len(part["body"]) for part in parts) == 65_536
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    assert parts[-1]["body"] == b""
    answer = json.loads(b"".join(part["body"] for part in parts))
    assert answer["results"][0]["document"] == body["documents"][0]
