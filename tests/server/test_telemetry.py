"""What logs, metrics and traces show, and what they don't."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from at2_rag import InputError, PruneResult, ScoredChunk
from at2_rag.server.telemetry.logs import JsonFormatter, request_id
from at2_rag.server.telemetry.metrics import Metrics
from at2_rag.server.telemetry.tracing import describe, reranker_span

SECRET = "the vault's number"
RESULT = PruneResult(
    query=f"What is {SECRET}?",
    kept=(ScoredChunk("a", 2.0, 1, f"It is {SECRET}.", probability=0.9, id="note"),),
    dropped=(ScoredChunk("b", -1.0, 0, "Nothing.", probability=0.1),),
    tokens_before=10,
    tokens_after=6,
    timings={
        "count": 0.1,
        "layout": 0.2,
        "wait": 0.4,
        "question": 3.0,
        "select": 0.5,
        "total": 4.2,
    },
)


def test_a_line_of_the_log_is_json_without_an_exceptions_message() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        record = logging.LogRecord("at2_rag.x", 40, "f", 1, "%s\n", ("failed",), sys.exc_info())
    record.fields = {"status": 500}
    token = request_id.set("an-id")
    line = JsonFormatter().format(record)
    request_id.reset(token)
    assert "\n" not in line and SECRET not in line
    logged = json.loads(line)
    assert (logged["message"], logged["level"], logged["status"]) == ("failed\n", "error", 500)
    assert (logged["request_id"], logged["exception"]) == ("an-id", "ValueError")
    assert __file__ in logged["raised_at"][0]


def test_stages_add_up_and_tokens_are_counted() -> None:
    metrics = Metrics()
    metrics.observe_result(RESULT, queue_seconds=1.0)
    metrics.observe_pruning(RESULT)
    metrics.observe_batch([10, 20])

    def value(name: str, **labels: str) -> Any:
        return metrics.registry.get_sample_value(name, labels)

    sums = {
        stage: value("at2_rag_stage_seconds_sum", stage=stage)
        for stage in ("queue", "tokenisation", "reading", "selection")
    }
    assert sums == pytest.approx(
        {"queue": 1.4, "tokenisation": 0.3, "reading": 3, "selection": 0.5}
    )
    assert value("at2_rag_documents_total") == 2
    assert value("at2_rag_prune_tokens_saved_total") == 4
    assert value("at2_rag_batch_questions_sum") == 2
    assert value("at2_rag_batch_tokens_sum") == 30
    assert b"at2_rag_prune_tokens_before_total 10.0" in metrics.page()


@pytest.mark.parametrize("with_text", [False, True])
def test_spans_are_rerankers_beneath_the_callers(spans: Any, with_text: bool) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with reranker_span({"traceparent": parent}, model="tiny") as span:
        describe(span, RESULT, RESULT.kept, with_text=with_text)
    [finished] = spans.get_finished_spans()
    attributes = dict(finished.attributes)
    assert f"{finished.context.trace_id:032x}" == parent.split("-")[1]
    assert attributes["openinference.span.kind"] == "RERANKER"
    assert attributes["reranker.input_documents.1.document.id"] == "note"
    assert attributes["reranker.output_documents.0.document.score"] == 0.9
    assert (SECRET in json.dumps(attributes)) is with_text


def test_a_span_has_the_class_of_an_error_alone(spans: Any) -> None:
    with (
        pytest.raises(InputError),
        reranker_span({"traceparent": "none"}, model="tiny"),
    ):
        raise InputError(SECRET)
    [finished] = spans.get_finished_spans()
    assert finished.status.status_code.name == "ERROR"
    assert finished.status.description == "InputError"
    assert SECRET not in finished.to_json()


OTHERS = f"""
import asyncio, logging, warnings
from at2_rag.server.process import _log_error
from at2_rag.server.telemetry.logs import log_as_json

async def main():
    asyncio.get_running_loop().set_exception_handler(_log_error)
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError({SECRET!r}))
    del future  # nobody asked for its exception
    await asyncio.sleep(0)

import transformers  # has a handler of its own
log_as_json()
asyncio.run(main())
logging.getLogger("some.library").warning("a warning")
logging.getLogger("some.library").info("not of interest")
logging.getLogger("transformers.models").warning("another")
warnings.warn("an old call")
"""


def test_what_other_libraries_log_is_json_too() -> None:
    ran = subprocess.run([sys.executable, "-c", OTHERS], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [one["logger"] for one in records] == [
        "at2_rag.server.access",
        "some.library",
        "transformers.models",
        "py.warnings",
    ]
    assert records[0]["exception"] == "ValueError" and SECRET not in ran.stderr
