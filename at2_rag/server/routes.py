"""What each path does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from at2_rag.results import PruneResult
from at2_rag.server.body import read_object, while_connected
from at2_rag.server.errors import ErrorKind, RequestError, as_request_error
from at2_rag.server.service import Service
from at2_rag.server.shapes import library
from at2_rag.server.shapes.error_forms import ErrorForm
from at2_rag.server.shapes.paths import shape_of
from at2_rag.server.shapes.ranking import parsed, rank
from at2_rag.server.telemetry.logs import request_id
from at2_rag.server.telemetry.tracing import describe, reranker_span


class JsonResponse(Response):
    """A response of ASCII-only JSON, which lone surrogates in documents survive."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def service_of(request: Request) -> Service:
    """Return the service that the server runs."""
    return cast(Service, request.state.service)


async def rerank(request: Request) -> Response:
    """Rank documents, in the shape that path and keys tell."""
    service = service_of(request)
    body = await _body(request)
    shape = shape_of(request.url.path, body)
    request.state.error_form = shape.error_form
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
        return await _prune_batch(request, parsed(library.PruneBatchBody, body))
    wanted = parsed(library.PruneBody, body)
    service.check_model(wanted.model)
    service.check_count(len(wanted.chunks))
    _note(request, documents=len(wanted.chunks))
    options = service.pruner.options.override(**wanted.options())

    async def work() -> PruneResult:
        job = await service.job(wanted.query, wanted.chunks, options, history=wanted.history)
        return await service.result(job)

    with reranker_span(request.headers, model=service.pruner.model_name) as span:
        result = await while_connected(request, work(), seconds=service.settings.timeout)
        describe(span, result, result.kept, with_text=service.settings.trace_text)
    _observe(request, [result])
    return Response(result.to_json(), media_type="application/json", headers=_answerable(result))


async def _prune_batch(request: Request, wanted: library.PruneBatchBody) -> Response:
    service = service_of(request)
    service.check_model(wanted.model)
    count = sum(len(question.chunks) for question in wanted.requests)
    service.check_count(max(count, len(wanted.requests)))
    _note(request, documents=count, questions=len(wanted.requests))
    options = service.pruner.options.override(**wanted.options())
    jobs = [
        await service.job(question.query, question.chunks, options, history=question.history)
        for question in wanted.requests
    ]
    futures = service.submit(jobs)
    return StreamingResponse(_lines(request, futures), media_type="application/x-ndjson")


async def _lines(
    request: Request, futures: Sequence[asyncio.Future[PruneResult]]
) -> AsyncIterator[bytes]:
    """Yield a line for each result as soon as it is there."""
    indexes = {future: index for index, future in enumerate(futures)}
    pending, seconds = set(futures), service_of(request).settings.timeout
    deadline = asyncio.get_running_loop().time() + seconds
    late = RequestError(ErrorKind.TIMEOUT, f"there was no answer within {seconds:g} s")
    try:
        while pending:
            left = deadline - asyncio.get_running_loop().time()
            done, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                try:
                    result = future.result()
                    line = library.prune_line(indexes[future], result)
                except Exception as error:
                    line = _error_line(indexes[future], as_request_error(error))
                else:
                    _observe(request, [result])
                yield line
            if not done:
                for future in pending:
                    yield _error_line(indexes[future], late)
                return
    finally:
        for future in futures:
            future.cancel()


def _error_line(index: int, error: RequestError) -> bytes:
    return library.error_line(index, ErrorForm.AT2_RAG.body(error))


async def attribute(request: Request) -> Response:
    """Say what an answer rests on."""
    service = service_of(request)
    wanted = parsed(library.AttributeBody, await _body(request))
    service.check_model(wanted.model)
    service.check_count(len(wanted.chunks))
    _note(request, documents=len(wanted.chunks))
    attributor = service.attributor
    span = None if wanted.span is None else (wanted.span[0], wanted.span[1])

    def work() -> dict[str, Any]:
        question = (wanted.query, wanted.chunks, wanted.answer)
        attribution = attributor.attribute(*question, span=span, unit=wanted.unit)
        cited = attributor.cite(
            *question, max_sources=wanted.max_sources, min_share=wanted.min_share
        )
        return library.attribution_reply(attribution, cited)

    return JsonResponse(
        await while_connected(request, service.beside(work), seconds=service.settings.timeout)
    )


async def index(request: Request) -> Response:
    """Read chunks ahead of any question."""
    service = service_of(request)
    wanted = parsed(library.IndexBody, await _body(request))
    service.check_model(wanted.model)
    service.check_count(len(wanted.chunks))
    _note(request, documents=len(wanted.chunks))
    work = service.beside(lambda: service.pruner.index(wanted.chunks))
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
    settings = service_of(request).settings
    return await read_object(
        request, max_bytes=settings.max_body_bytes, seconds=settings.body_timeout
    )


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
