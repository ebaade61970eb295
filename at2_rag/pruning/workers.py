"""Threads that run calls for event loops, and read for other threads."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import platform
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import torch

from at2_rag.errors import PrunerBusyError
from at2_rag.model.forks import call_after_fork
from at2_rag.progress import Abandoned, Stopwatch, abandoned_by, abandonment, check_wanted

T = TypeVar("T")

_LIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None

_EXIT_SECONDS = 1.5  # most that running calls may take to end when the process does
_IDLE_SECONDS = 1.0  # that a thread waits for another call
_LOOK_SECONDS = 0.1  # between two looks of a waiting call at whether it is still wanted


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    """A call with what it leaves, and whether it is still wanted."""

    run: Callable[[], T]
    context: Context
    future: Future[T] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def run_now(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            with abandoned_by(self.abandoned):
                result = self.run()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Workers:
    """Runs calls in a few threads of its own, for any number of event loops or threads.

    A thread is started when a call comes, and ends when none has come for a second; the last gives
    the memory that they freed back to the system, so that nothing is left behind. A cancelled call
    that waits is never run, one that runs ends at its next `check_wanted`. The threads don't keep
    the process from ending.

    Args:
        most: Returns how many threads may run at a time.
        max_pending: Most calls that wait or run; None for any number.
    """

    def __init__(self, most: Callable[[], int], *, max_pending: int | None = None) -> None:
        self._most, self._max_pending = most, max_pending
        self._after_fork()
        call_after_fork(self._after_fork)
        _all_workers.add(self)

    def _after_fork(self) -> None:
        """Forget the parent's threads, and the calls that they had or that waited for them."""
        self._condition = threading.Condition()
        self._waiting: deque[_Call[Any]] = deque()
        self._running: dict[threading.Thread, _Call[Any] | None] = {}
        self._pending = 0  # calls that somebody awaits

    async def run(self, function: Callable[[], T]) -> T:
        """Return what the function returns in a worker thread, in a copy of this context.

        Raises:
            PrunerBusyError: If too many calls wait or run already.
        """
        call = _Call(function, copy_context())
        self._start(call)
        try:
            return await asyncio.wrap_future(call.future)
        except Abandoned:
            raise asyncio.CancelledError from None
        finally:
            call.abandoned.set()
            self._forget(call)

    def call(self, function: Callable[[], T], watch: Stopwatch) -> T:
        """Return what the function returns, in a worker thread unless this is the main thread.

        malloc keeps what a thread frees for that thread, so that with many of them in native code
        a process would hold many times what it needs. The time until a worker thread is free is
        the stage "wait".
        """
        if threading.current_thread() is threading.main_thread():
            return function()
        waiting = ExitStack()
        waiting.enter_context(watch.stage("wait"))

        def run() -> T:
            waiting.close()
            return function()

        abandoned = abandonment()
        call = _Call(run, copy_context(), abandoned=abandoned or threading.Event())
        self._start(call)
        try:
            while not wait([call.future], _LOOK_SECONDS if abandoned else None).done:
                check_wanted()
            return call.future.result()
        finally:
            self._forget(call)
            del call  # with an error, which refers to this frame

    def abandon(self) -> list[Future[Any]]:
        """Abandon all calls, and return the futures of those that run, which are about to end."""
        with self._condition:
            self._waiting.clear()
            calls = [call for call in self._running.values() if call is not None]
        for call in calls:
            call.abandoned.set()
        return [call.future for call in calls]

    def _forget(self, call: _Call[Any]) -> None:
        with self._condition:
            self._pending -= 1
            if call in self._waiting:
                self._waiting.remove(call)

    def _start(self, call: _Call[Any]) -> None:
        with self._condition:
            if self._max_pending is not None and self._pending >= self._max_pending:
                raise PrunerBusyError(
                    f"{self._pending} calls wait or run already, and max_pending is "
                    f"{self._max_pending}; await fewer at a time (asyncio.Semaphore), or pass a "
                    "larger max_pending"
                )
            self._waiting.append(call)
            self._pending += 1
            idle = sum(running is None for running in self._running.values())
            if idle < len(self._waiting) and len(self._running) < self._most():
                thread = threading.Thread(target=self._work, name="at2_rag", daemon=True)
                thread.start()  # it waits for the condition's lock
                self._running[thread] = None
            self._condition.notify()

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._condition:
                self._running[thread] = None
                if not self._waiting:
                    self._condition.wait(_IDLE_SECONDS)
                if not self._waiting:
                    del self._running[thread]
                    break
                call = self._running[thread] = self._waiting.popleft()
            call.context.run(call.run_now)
            del call  # its chunks and result
        if not self._running:
            _release_memory()


def _release_memory() -> None:
    """Give the system back what was freed, which malloc keeps for each thread, even for ended ones.

    That is 50 to 100 MB for each that has read, and takes some milliseconds.
    """
    if _LIBC is not None:
        _LIBC.malloc_trim(0)


def most_readers() -> int:
    """Return how many threads should read at a time."""
    # One more than have cores to themselves: while it is in Python, another multiplies.
    return 1 + _cores() // torch.get_num_threads()


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_all_workers: WeakSet[Workers] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """End running calls, since a thread in native code can't outlive the interpreter."""
    # All are abandoned before any is waited for, since calls of one pass work on to another.
    running = [future for workers in list(_all_workers) for future in workers.abandon()]
    wait(running, _EXIT_SECONDS)
