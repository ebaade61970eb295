"""Threads that run calls for event loops."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from at2_rag.errors import PrunerBusyError
from at2_rag.model.forks import call_after_fork
from at2_rag.progress import Abandoned, abandoned_by

T = TypeVar("T")

_EXIT_SECONDS = 1.5  # most that running calls may take to end when the process does


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
        except Abandoned:
            self.future.set_exception(asyncio.CancelledError())
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Workers:
    """Runs calls in threads of its own, for any number of event loops.

    A thread is started when a call comes and ends when none waits, so that nothing is left behind.
    A cancelled call that waits is never run, one that runs ends at its next `check_wanted`. The
    threads don't keep the process from ending.

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
        self._lock = threading.Lock()
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
        finally:
            call.abandoned.set()
            with self._lock:
                self._pending -= 1
                if call in self._waiting:
                    self._waiting.remove(call)

    def stop(self, seconds: float) -> None:
        """Abandon all calls, and wait so long for those that run."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self._waiting.clear()
            running = dict(self._running)
        for call in running.values():
            if call is not None:
                call.abandoned.set()
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self, call: _Call[Any]) -> None:
        with self._lock:
            if self._max_pending is not None and self._pending >= self._max_pending:
                raise PrunerBusyError(
                    f"{self._pending} calls wait or run already, and max_pending is "
                    f"{self._max_pending}; await fewer at a time (asyncio.Semaphore), or pass a "
                    "larger max_pending"
                )
            if len(self._running) < self._most():
                thread = threading.Thread(target=self._work, name="at2_rag", daemon=True)
                thread.start()  # it waits for the lock
                self._running[thread] = None
            self._waiting.append(call)
            self._pending += 1

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._lock:
                if not self._waiting:
                    del self._running[thread]
                    return
                call = self._running[thread] = self._waiting.popleft()
            call.context.run(call.run_now)
            del call  # its chunks and result
            self._running[thread] = None


_all_workers: WeakSet[Workers] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """End running calls, since a thread in native code can't outlive the interpreter."""
    for workers in list(_all_workers):
        workers.stop(_EXIT_SECONDS)
