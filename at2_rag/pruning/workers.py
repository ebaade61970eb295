"""Threads that run calls for event loops, and read for other threads."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from at2_rag.errors import PrunerBusyError
from at2_rag.model.forks import call_after_fork
from at2_rag.progress import Stopwatch
from at2_rag.wanted import Abandoned, abandoned_by, abandonment, check_wanted

T = TypeVar("T")

CORES_VARIABLE = "PYTHON_CPU_COUNT"
"""Environment variable with the number of cores to use, where that isn't all there are."""

_LIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None

_EXIT_SECONDS = 1.5  # most that running calls may take to end when the process does
_IDLE_SECONDS = 1.0  # that a thread waits for another call
_RELEASE_SECONDS = 30.0  # between two releases of freed memory while calls come
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
            del self  # which the error refers to, by this frame
        else:
            self.future.set_result(result)


class Workers:
    """Runs the calls of any number of event loops and threads in a few worker threads.

    A thread is started when a call comes, and ends when none has come for a second. The memory that
    they freed is given back to the system when the last ends, and now and then before. A cancelled
    call that waits is never run, one that runs ends at its next `check_wanted`. The threads don't
    keep the process from ending.

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
        self._ending = False  # with the process
        self._released = time.monotonic()  # when memory was last released

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
            del call  # which an error refers to, by this frame

    def call(self, function: Callable[[], T], watch: Stopwatch) -> T:
        """Return what the function returns, in a worker thread unless this is the main thread.

        malloc keeps what a thread frees for that thread, so that with many of them in native code
        a process would hold many times what it needs. The time until a worker thread is free is
        the stage "wait".
        """
        check_wanted()
        if threading.current_thread() is threading.main_thread():
            return function()
        waiting = ExitStack()
        waiting.enter_context(watch.stage("wait"))

        def run() -> T:
            waiting.close()
            return function()

        abandoned = abandonment()
        call = _Call(run, copy_context(), abandoned=abandoned or threading.Event())
        try:
            self._start(call)
        except RuntimeError:  # there can be no more threads
            return run()
        try:
            while not wait([call.future], _LOOK_SECONDS if abandoned else None).done:
                check_wanted()
            return call.future.result()
        except Abandoned:
            if abandoned:
                raise
            raise SystemExit from None  # the process ends, and with it the caller, a daemon thread
        finally:
            self._forget(call)
            del call

    def abandon(self) -> None:
        """Abandon all calls, and let the threads end."""
        with self._condition:
            self._ending = True
            self._waiting.clear()
            for call in self._running.values():
                if call is not None:
                    call.abandoned.set()
            self._condition.notify_all()

    def join(self, deadline: float) -> None:
        """Wait for all threads to end until a deadline, by `time.monotonic`."""
        with self._condition:
            running = list(self._running)
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))

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
            idle = sum(running is None for running in self._running.values())
            if idle <= len(self._waiting) and len(self._running) < self._most():
                thread = threading.Thread(target=self._work, name="at2_rag", daemon=True)
                try:
                    thread.start()  # it waits for the condition's lock
                except RuntimeError:  # there can be no more threads; the others do it
                    if not self._running:
                        raise
                else:
                    self._running[thread] = None
            self._waiting.append(call)
            self._pending += 1
            self._condition.notify()

    def _work(self) -> None:
        thread = threading.current_thread()
        while (call := self._next_call(thread)) is not None:
            call.context.run(call.run_now)
            del call  # its chunks and result
            with self._condition:
                self._running[thread] = None
            if time.monotonic() - self._released > _RELEASE_SECONDS:
                self._release_memory()
        if not self._running and not self._ending:
            self._release_memory()

    def _next_call(self, thread: threading.Thread) -> _Call[Any] | None:
        """Return the next call for a thread; None if it is to end."""
        with self._condition:
            if not self._waiting and not self._ending:
                self._condition.wait(_IDLE_SECONDS)
            if not self._waiting:
                del self._running[thread]
                return None
            call = self._running[thread] = self._waiting.popleft()
            return call

    def _release_memory(self) -> None:
        """Give freed memory back to the system, which malloc keeps for each thread."""
        self._released = time.monotonic()
        if _LIBC is not None:
            _LIBC.malloc_trim(0)


def most_readers() -> int:
    """Return how many threads should read at a time."""
    import torch  # which adapters don't load

    # One more than have cores to themselves: while it is in Python, another multiplies.
    return 1 + _cores() // torch.get_num_threads()


def _cores() -> int:
    """Return the cores that this process may use.

    The variable PYTHON_CPU_COUNT counts, as it does for Python 3.13's own `process_cpu_count`.
    """
    if (wanted := os.environ.get(CORES_VARIABLE, "")).isdecimal() and int(wanted):
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_all_workers: WeakSet[Workers] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """End running calls, since a thread in native code can't outlive the interpreter."""
    deadline, every = time.monotonic() + _EXIT_SECONDS, list(_all_workers)
    for workers in every:
        workers.abandon()
    for workers in every:  # only now, since calls of one work on to another
        workers.join(deadline)
