"""What an operator may set: limits, times and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from at2_rag.errors import InputError, brief


def _setting(default: Any, least: float, help: str) -> Any:
    """Declare a number, with its least value and what the command line says of it."""
    return field(default=default, metadata={"least": least, "help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Limits, times and keys of a server.

    Attributes:
        api_keys: Keys of which a request has to carry one, as `Authorization: Bearer KEY`; none for
            a server that is open to all who reach it.
        model_names: Names that requests may give to the model, besides its own and "at2-rag".
        trace_text: Whether spans carry the question and the documents.
        max_requests: Most requests in flight, from their headers to their last byte.
        max_body_bytes: Most bytes of a request's body.
        max_bytes_in_flight: Most bytes of all bodies in flight, at least `max_body_bytes`.
        max_documents: Most documents of a request, all of its questions together.
        max_request_tokens: Most tokens of a request, as the scoring model reads it.
        max_batch_tokens: Most tokens that are read together; a larger request is read by itself.
        max_queue_tokens: Most tokens that wait or are read. An empty queue takes any request.
        batch_delay: Seconds that a request waits for others to be read with.
        timeout: Seconds that an answer may take once the body is here, and then seconds that a
            client may take to read each 64 KiB of it.
        body_timeout: Seconds that a client may take for headers, and as many for the body.
        drain_seconds: Seconds that requests have to finish once the server is told to stop.

    Raises:
        InputError: If a number is below its least value, a body may be larger than all together,
            or a key is blank.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    model_names: tuple[str, ...] = ()
    trace_text: bool = False
    max_requests: int = _setting(256, 1, "Most requests in flight; more are answered 429.")
    max_body_bytes: int = _setting(2**22, 1, "Most bytes of a body; more are answered 413.")
    max_bytes_in_flight: int = _setting(
        2**26, 1, "Most bytes of all bodies in flight; requests beyond are answered 429."
    )
    max_documents: int = _setting(1000, 1, "Most documents of a request; more are answered 413.")
    max_request_tokens: int = _setting(
        131_072, 1, "Most tokens of a request, as the scoring model reads it; else 422."
    )
    max_batch_tokens: int = _setting(16_384, 1, "Most tokens that requests read together have.")
    max_queue_tokens: int = _setting(
        262_144, 1, "Most tokens that wait or are read; requests beyond are answered 429."
    )
    batch_delay: float = _setting(
        0.005, 0, "Seconds that a request waits for others to be read with."
    )
    timeout: float = _setting(
        120.0,
        0.001,
        "Seconds until a request without an answer is abandoned, or an answer that isn't read.",
    )
    body_timeout: float = _setting(
        10.0, 0.001, "Seconds that a client may take for its headers, and as many for its body."
    )
    drain_seconds: float = _setting(
        30.0, 0, "Seconds that requests have to finish once the server is told to stop."
    )

    def __post_init__(self) -> None:
        for number in numbers():
            value, least = getattr(self, number.name), number.metadata["least"]
            if isinstance(value, bool) or not math.isfinite(value) or value < least:
                raise InputError(
                    f"{number.name} is {brief(value)}; pass a finite number of at least {least}"
                )
        if self.max_body_bytes > self.max_bytes_in_flight:
            raise InputError(
                f"max_body_bytes is {self.max_body_bytes:,}, max_bytes_in_flight, which all "
                f"bodies share, is {self.max_bytes_in_flight:,}; raise the latter"
            )
        if not all(key.strip() for key in self.api_keys):
            raise InputError("an API key is blank; remove it, or write one")


def numbers() -> list[Any]:
    """Return the fields that are numbers, from which the command line is built."""
    return [each for each in fields(ServerSettings) if "least" in each.metadata]
