"""Pure ASGI: ids, logs and metrics of requests, keys, and how many are in flight."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from at2_rag.server.errors import ErrorKind, RequestError
from at2_rag.server.keys import Keys
from at2_rag.server.routes import JsonResponse
from at2_rag.server.service import Service
from at2_rag.server.shapes.paths import error_form_of
from at2_rag.server.telemetry.logs import access_log, request_id

_STOPPED = RequestError(
    ErrorKind.NOT_READY,
    "the server stopped before the answer was there; send the request again",
    retry_after=1,
)
_GONE = RequestError(ErrorKind.CLIENT_GONE, "the client left")
_PART_BYTES = 65_536
_IDENTITY = re.compile(r"[\w.:-]{1,64}", re.ASCII)


def header(scope: Scope, name: bytes) -> bytes:
    """Return the value of a request's header; empty if it has none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error, in the form that errors have on the path."""
    form = error_form_of(scope["path"])
    response = JsonResponse(form.body(error), form.status(error), headers=error.headers)
    await response(scope, receive, send)


def _parts(message: Message) -> Iterator[Message]:
    """Yield a message in parts of a body, the last one empty.

    A server waits for a slow client before it writes, not after. So an answer in one message would
    be written whole into memory, and be over for the app, before the client has read any of it.
    """
    if message["type"] != "http.response.body":
        yield message
        return
    body = message.get("body", b"")
    for start in range(0, len(body), _PART_BYTES):
        yield {**message, "body": body[start : start + _PART_BYTES], "more_body": True}
    if not message.get("more_body", False):
        yield {**message, "body": b""}


class Observe:
    """Gives each request an id, and logs and counts it once it is answered.

    A client's `X-Request-Id` is taken over if it is a short word.

    Args:
        app: The app.
        paths: The paths that metrics tell apart; all others are "other".
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = header(scope, b"x-request-id").decode("latin-1")
        identity = sent_id if _IDENTITY.fullmatch(sent_id) else uuid4().hex
        token = request_id.set(identity)
        facts: dict[str, Any] = {}
        scope["state"]["facts"] = facts
        service = cast(Service, scope["state"]["service"])
        start, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", identity.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            for part in _parts(message):
                await send(part)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # after the deadline of a drain; by Ray if the client left
            if not status:
                error = _STOPPED if service.draining else _GONE
                await refuse(error, scope, receive, send_with_id)
        except Exception:
            if not status:  # else it was answered, and logged
                access_log.exception("a request failed")
                error = RequestError(ErrorKind.FAILED, "the server failed; its log says more")
                with suppress(Exception):
                    await refuse(error, scope, receive, send_with_id)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            seconds = time.perf_counter() - start
            service.metrics.requests.labels(path, str(status)).inc()
            service.metrics.request_seconds.labels(path).observe(seconds)
            fields = {"method": scope["method"], "path": path, "status": status}
            fields |= {"seconds": round(seconds, 6), **facts}
            access_log.info("request", extra={"fields": fields})
            request_id.reset(token)


class Authenticate:
    """Refuses requests without a key, except on open paths."""

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: Collection[str]) -> None:
        self._app, self._keys, self._open_paths = app, keys, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if (
            scope["type"] != "http"
            or scope["path"] in self._open_paths
            or self._keys.allow(header(scope, b"authorization"))
        ):
            await self._app(scope, receive, send)
            return
        error = RequestError(
            ErrorKind.WRONG_KEY,
            "the API key is missing or unknown; send one of the server's as "
            "'Authorization: Bearer KEY'",
        )
        await refuse(error, scope, receive, send)


class Admit:
    """Bounds how many requests are in flight, and takes no new ones while the server drains."""

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        service = cast(Service, scope["state"]["service"])
        if (refusal := self._refusal(service)) is not None:
            await refuse(refusal, scope, receive, send)
            return
        service.in_flight += 1
        scope["state"]["body_bytes"] = 0  # of this one, as far as it was read
        try:
            await self._app(scope, receive, send)
        finally:
            service.in_flight -= 1
            service.body_bytes -= scope["state"]["body_bytes"]

    def _refusal(self, service: Service) -> RequestError | None:
        seconds, most = service.retry_after, service.settings.max_requests
        if service.draining:
            return RequestError(
                ErrorKind.NOT_READY,
                "the server is about to stop; send the request to another, or try again",
                retry_after=1,
            )
        if service.in_flight >= most:
            return RequestError(
                ErrorKind.BUSY,
                f"{service.in_flight} requests are in flight, at most {most} may be; try again "
                f"in {seconds} s",
                retry_after=seconds,
            )
        return None
