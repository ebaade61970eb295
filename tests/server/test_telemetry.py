"""What logs, metrics and traces show, and what they don't."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from at2_rag import PruneResult, ScoredChunk
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
def test_spans_are_rerankers_beneath_the_callers(with_text: bool) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace

    exporter = memory.InMemorySpanExporter()
    if not isinstance(trace.get_tracer_provider(), sdk.TracerProvider):  # it can be set once
        trace.set_tracer_provider(sdk.TracerProvider())
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with reranker_span({"traceparent": parent}, model="tiny") as span:
        describe(span, RESULT, RESULT.kept, with_text=with_text)
    [finished] = exporter.get_finished_spans()
    attributes = dict(finished.attributes)
    assert f"{finished.context.trace_id:032x}" == parent.split("-")[1]
    assert attributes["openinference.span.kind"] == "RERANKER"
    assert attributes["reranker.input_documents.1.document.id"] == "note"
    assert attributes["reranker.output_documents.0.document.score"] == 0.9
    assert (SECRET in json.dumps(attributes)) is with_text
