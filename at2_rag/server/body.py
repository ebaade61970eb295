"""Reads the body of a request, within bounds of size and time, and notices clients that leave."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from at2_rag.errors import brief
from at2_rag.server.errors import ErrorKind, RequestError

T = TypeVar("T")


async def read_object(
    request: Request, *, max_bytes: int, seconds: float, take: Callable[[int], None]
) -> dict[str, Any]:
    """Return the JSON object of a body.

    Args:
        request: The request.
        max_bytes: Most bytes of the body.
        seconds: Seconds within which it has to be here.
        take: Called with the bytes of each part as it comes; raises where they are too many.

    Raises:
        RequestError: If it is larger than `max_bytes`, not here within `seconds`, not in UTF-8 or
            not a JSON object, or if the client leaves; as `take`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(
            ErrorKind.WRONG_MEDIA_TYPE,
            f"the Content-Type is {brief(media_type)}; send JSON, as application/json",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RequestError(
            ErrorKind.WRONG_MEDIA_TYPE,
            f"the Content-Encoding is {brief(encoding)}; send the body as it is, not compressed",
        )
    try:
        async with asyncio.timeout(seconds):
            body = await _read(request, max_bytes, take)
    except TimeoutError:
        raise RequestError(
            ErrorKind.BODY_TIMEOUT,
            f"the body wasn't here after {seconds:g} s; send it faster, or in smaller requests",
        ) from None
    except ClientDisconnect:
        raise RequestError(ErrorKind.CLIENT_GONE, "the client left") from None
    return _parsed(body)


async def _read(request: Request, max_bytes: int, take: Callable[[int], None]) -> bytearray:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(int(announced), max_bytes)
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > max_bytes:
            raise _too_large(len(body) + len(part), max_bytes)
        take(len(part))
        body += part
    return body


def _too_large(size: int, max_bytes: int) -> RequestError:
    return RequestError(
        ErrorKind.TOO_LARGE,
        f"the body has {size:,} bytes or more, at most {max_bytes:,} are taken; send fewer or "
        "shorter documents",
    )


def _parsed(body: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise RequestError(
            ErrorKind.INVALID_BODY, f"the body isn't UTF-8 (byte {error.start}); encode it as UTF-8"
        ) from None
    except RecursionError:
        raise RequestError(
            ErrorKind.INVALID_BODY, "the body is nested too deep; send it flat"
        ) from None
    except ValueError as error:
        raise RequestError(
            ErrorKind.INVALID_BODY, f"the body isn't JSON: {error}; send one JSON object"
        ) from None
    if not isinstance(value, dict):
        raise RequestError(
            ErrorKind.INVALID_BODY, f"the body is {brief(value)}; send one JSON object"
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is beyond what a float holds (about 1.8e308)")
    return number


async def while_connected(request: Request, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
    """Return what `work` returns; cancel it if the client leaves or after so many seconds.

    The body has to be read by then.

    Raises:
        RequestError: If the client left, or time is up.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise RequestError(ErrorKind.CLIENT_GONE, "the client left")
        raise RequestError(
            ErrorKind.TIMEOUT,
            f"there was no answer within {seconds:g} s; send fewer or shorter documents, or try "
            "again when the server is less busy",
        )
    finally:
        drop(task)
        drop(gone)


def drop(future: asyncio.Future[Any]) -> None:
    """Cancel what nobody awaits any more; asyncio would print its exception, texts and all."""
    future.cancel()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
