"""What each path does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from at2_rag.results import PruneResult
from at2_rag.server.body import drop, read_object, while_connected
from at2_rag.server.errors import ErrorKind, RequestError, as_request_error
from at2_rag.server.service import Service
from at2_rag.server.shapes import library
from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.paths import shape_of
from at2_rag.server.shapes.ranking import parsed, rank
from at2_rag.server.telemetry.logs import access_log, request_id
from at2_rag.server.telemetry.tracing import describe, reranker_span


class JsonResponse(Response):
    """A response of ASCII-only JSON, which lone surrogates in documents survive.

    Raises:
        RequestError: If a document that it is to hold is nested too deep.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        try:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as error:
            raise RequestError(
                ErrorKind.INVALID_INPUT,
                "a document can't be sent back as JSON, since it is nested too deep; flatten it, "
                'or set "return_documents" to false',
            ) from error


def service_of(request: Request) -> Service:
    """Return the service that the server runs."""
    return cast(Service, request.state.service)


async def rerank(request: Request) -> Response:
    """Rank documents, in the shape that path and keys tell."""
    service = service_of(request)
    body = await _body(request)
    shape = shape_of(request.url.path, body)
    request.state.error_form = shape.error_form
    service.check_count(_length(body, "documents") + _length(body, "texts"))
    wanted = parsed(shape.body, body)
    ranking = wanted.ranking()
    _note(request, shape=shape.name, documents=len(ranking.documents))
    model, with_text = service.pruner.model_name, service.settings.trace_text
    with reranker_span(request.headers, model=model) as span:
        ranked = await while_connected(
            request,
            rank(service, ranking, identity=request_id.get() or ""),
            seconds=service.settings.timeout,
        )
        describe(span, ranked.result, ranked.best, with_text=with_text)
    _note(request, tokens=ranked.tokens)
    return JsonResponse(shape.reply(wanted, ranked), headers=_answerable(ranked.result))


async def prune(request: Request) -> Response:
    """Prune one question's chunks, or stream the results of several."""
    service = service_of(request)
    body = await _body(request)
    if "requests" in body:
        return await _prune_batch(request, body)
    service.check_count(_length(body, "chunks"))
    wanted = parsed(library.PruneBody, body)
    service.check_model(wanted.model)
    _note(request, documents=len(wanted.chunks))
    options = service.pruner.options.override(**wanted.options())

    async def work() -> PruneResult:
        jobs = await service.jobs([(wanted.query, wanted.chunks, wanted.history)], options)
        [future] = service.submit(jobs)
        return await future

    with reranker_span(request.headers, model=service.pruner.model_name) as span:
        result = await while_connected(request, work(), seconds=service.settings.timeout)
        describe(span, result, result.kept, with_text=service.settings.trace_text)
    _observe(request, [result])
    return Response(result.to_json(), media_type="application/json", headers=_answerable(result))


async def _prune_batch(request: Request, body: Mapping[str, Any]) -> Response:
    service = service_of(request)
    questions = body["requests"] if isinstance(body["requests"], list) else []
    count = sum(_length(question, "chunks") for question in questions)
    service.check_count(max(count, len(questions)))
    wanted = parsed(library.PruneBatchBody, body)
    service.check_model(wanted.model)
    _note(request, documents=count, questions=len(questions))
    options = service.pruner.options.override(**wanted.options())
    deadline = asyncio.get_running_loop().time() + service.settings.timeout

    async def queue() -> list[asyncio.Future[PruneResult]]:
        questions = [(one.query, one.chunks, one.history) for one in wanted.requests]
        return service.submit(await service.jobs(questions, options))

    futures = await while_connected(request, queue(), seconds=service.settings.timeout)
    return StreamingResponse(_lines(request, futures, deadline), media_type="application/x-ndjson")


async def _lines(
    request: Request, futures: Sequence[asyncio.Future[PruneResult]], deadline: float
) -> AsyncIterator[bytes]:
    """Yield a line for each result as soon as it is there."""
    lines = [
        asyncio.ensure_future(_line(request, index, future, deadline))
        for index, future in enumerate(futures)
    ]
    try:
        for line in asyncio.as_completed(lines):
            yield await line
    finally:
        for pending in lines:
            drop(pending)


async def _line(
    request: Request, index: int, future: asyncio.Future[PruneResult], deadline: float
) -> bytes:
    """Return the line of a question: its result, or an error."""
    service = service_of(request)
    try:
        with reranker_span(request.headers, model=service.pruner.model_name) as span:
            async with asyncio.timeout_at(deadline):
                result = await future
            describe(span, result, result.kept, with_text=service.settings.trace_text)
        line = library.prune_line(index, result)
    except TimeoutError:
        seconds = service.settings.timeout
        shown = RequestError(ErrorKind.TIMEOUT, f"there was no answer within {seconds:g} s")
    except Exception as error:
        shown = as_request_error(error)
        if shown.kind is ErrorKind.FAILED:
            access_log.error("a question failed", exc_info=error)
    else:
        _observe(request, [result])
        return line
    return library.error_line(index, ErrorForm.AT2_RAG.body(shown))


async def attribute(request: Request) -> Response:
    """Say what an answer rests on."""
    service = service_of(request)
    body = await _body(request)
    service.check_count(_length(body, "chunks"))
    wanted = parsed(library.AttributeBody, body)
    service.check_model(wanted.model)
    _note(request, documents=len(wanted.chunks))
    work = service.attribute(
        wanted.query,
        wanted.chunks,
        wanted.answer,
        span=None if wanted.span is None else (wanted.span[0], wanted.span[1]),
        unit=wanted.unit,
        max_sources=wanted.max_sources,
        min_share=wanted.min_share,
    )
    attributed = await while_connected(request, work, seconds=service.settings.timeout)
    return JsonResponse(library.attribution_reply(*attributed))


async def index(request: Request) -> Response:
    """Read chunks ahead of any question."""
    service = service_of(request)
    body = await _body(request)
    service.check_count(_length(body, "chunks"))
    wanted = parsed(library.IndexBody, body)
    service.check_model(wanted.model)
    _note(request, documents=len(wanted.chunks))
    work = service.index(wanted.chunks)
    await while_connected(request, work, seconds=service.settings.timeout)
    return JsonResponse({"chunks": len(wanted.chunks)})


async def live(request: Request) -> Response:
    """Say that the process runs."""
    return JsonResponse({"status": "live"})


async def ready(request: Request) -> Response:
    """Say whether new requests are taken."""
    draining = service_of(request).draining
    return JsonResponse(
        {"status": "draining" if draining else "ready"}, status_code=503 if draining else 200
    )


async def info(request: Request) -> Response:
    """Say what is served, and within which limits."""
    return JsonResponse(service_of(request).info())


async def metrics(request: Request) -> Response:
    """Show counters and histograms to Prometheus."""
    return Response(
        service_of(request).metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def _body(request: Request) -> dict[str, Any]:
    service = service_of(request)

    def take(size: int) -> None:
        service.take_body(size)
        request.state.body_bytes += size

    settings = service.settings
    return await read_object(
        request, max_bytes=settings.max_body_bytes, seconds=settings.body_timeout, take=take
    )


def _length(body: Any, key: str) -> int:
    """Return how many items the list of a key has, before any of them is looked at."""
    items = body.get(key) if isinstance(body, dict) else None
    return len(items) if isinstance(items, list) else 0


def _note(request: Request, **facts: Any) -> None:
    """Add to what is logged of a request."""
    request.state.facts.update(facts)


def _observe(request: Request, results: Sequence[PruneResult]) -> None:
    for result in results:
        service_of(request).metrics.observe_pruning(result)


def _answerable(result: PruneResult) -> Mapping[str, str]:
    if result.answerable is None:  # there was nothing to score
        return {}
    return {"X-AT2-Answerable": f"{result.answerable:.6f}"}
