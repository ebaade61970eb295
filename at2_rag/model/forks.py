"""What keeps a forked process usable: no lock in it is held by a thread that only its parent has.

Locks of Python are made anew. Those inside torch and MKL can't be, so a fork waits for a moment
at which no thread is within a layer of the model.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from weakref import WeakMethod

_log = logging.getLogger(__name__)
_MOST_SECONDS = 10.0  # that a fork waits for layers

_numbers = count()
_methods: dict[int, WeakMethod[Callable[[], None]]] = {}


def call_after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked process, for as long as its object exists."""
    number = next(_numbers)
    _methods[number] = WeakMethod(method, lambda _: _methods.pop(number, None))


class ForkLock:
    """A lock that is free in a forked process, whoever held it in the parent; not reentrant."""

    def __init__(self) -> None:
        self._renew()
        call_after_fork(self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.Lock()


class _Forks:
    """Makes forks wait for threads in native code, and these for forks."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._within = threading.local()  # `blocks`: how many blocks this thread is in
        self._threads = 0  # that are in a block, and aren't waiting
        self._pending = 0

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Let forks wait for the block; blocks of one thread may overlap in any order."""
        with self._condition:
            if not self._blocks():
                self._condition.wait_for(lambda: not self._pending)
                self._threads += 1
            self._within.blocks = self._blocks() + 1
        try:
            yield
        finally:
            with self._condition:
                self._within.blocks -= 1
                if not self._within.blocks:
                    self._threads -= 1
                    self._condition.notify_all()

    def let_pass(self) -> None:
        """Wait for pending forks, from within blocks."""
        if self._pending and self._blocks():
            with self._condition:
                self._threads -= 1
                self._condition.notify_all()
                try:
                    self._condition.wait_for(lambda: not self._pending)
                finally:
                    self._threads += 1

    def before(self) -> None:
        with self._condition:
            self._pending += 1
            mine = 1 if self._blocks() else 0
            if not self._condition.wait_for(lambda: self._threads == mine, _MOST_SECONDS):
                _log.warning(
                    "forked while threads read, after waiting %.0f s: the child may hang in torch",
                    _MOST_SECONDS,
                )

    def after_in_parent(self) -> None:
        with self._condition:
            self._pending -= 1
            self._condition.notify_all()

    def after_in_child(self) -> None:
        self._condition = threading.Condition()
        self._threads, self._pending = (1 if self._blocks() else 0), 0
        for reference in list(_methods.values()):
            method = reference()
            if method is not None:
                method()

    def _blocks(self) -> int:
        return getattr(self._within, "blocks", 0)


forks = _Forks()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=forks.before,
        after_in_parent=forks.after_in_parent,
        after_in_child=forks.after_in_child,
    )
