"""Spans of the kind RERANKER, by OpenInference's conventions, which Phoenix and Langfuse draw.

Nothing is sent anywhere unless the operator installs and sets up an OpenTelemetry SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from at2_rag.results import PruneResult, ScoredChunk

_tracer = trace.get_tracer("at2_rag.server")


@contextmanager
def reranker_span(headers: Mapping[str, str], *, model: str) -> Iterator[Span]:
    """Open a span beneath the one that a request's headers name, if they do.

    Of an exception it has the class alone, since the message may quote a document.
    """
    with _tracer.start_as_current_span(
        "rerank",
        context=propagate.extract(headers),
        kind=SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
        attributes={"openinference.span.kind": "RERANKER", "reranker.model_name": model},
    ) as span:
        try:
            yield span
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def describe(
    span: Span, result: PruneResult, ranked: Sequence[ScoredChunk], *, with_text: bool
) -> None:
    """Write into a span what went in and what came out; texts only if `with_text`."""
    if not span.is_recording():
        return
    given = sorted((*result.kept, *result.dropped), key=lambda chunk: chunk.index)
    attributes: dict[str, Any] = {"reranker.top_k": len(ranked)}
    if with_text:
        attributes["reranker.query"] = result.query
        attributes["input.value"] = result.query
    for name, chunks in (("input", given), ("output", ranked)):
        for number, chunk in enumerate(chunks):
            prefix = f"reranker.{name}_documents.{number}.document"
            attributes[f"{prefix}.id"] = chunk.id or str(chunk.index)
            if name == "output":
                attributes[f"{prefix}.score"] = chunk.relevance
            if with_text:
                attributes[f"{prefix}.content"] = chunk.rendered
    span.set_attributes(attributes)
