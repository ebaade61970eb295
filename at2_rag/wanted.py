"""Whether work is still wanted, which it asks as it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


class Abandoned(BaseException):
    """Raised in work that nobody waits for any more; not an error, so not an `Exception`."""


@contextmanager
def abandoned_by(event: threading.Event) -> Iterator[None]:
    """Let `check_wanted` end the block's work once the event is set."""
    token = _abandoned.set(event)
    try:
        yield
    finally:
        _abandoned.reset(token)


def abandonment() -> threading.Event | None:
    """Return the event upon which `check_wanted` raises; None if it never does."""
    return _abandoned.get()


def check_wanted() -> None:
    """Raise `Abandoned` if nobody waits for this work any more."""
    event = _abandoned.get()
    if event is not None and event.is_set():
        raise Abandoned
