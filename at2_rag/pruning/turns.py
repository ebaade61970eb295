"""Limits how many threads read at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from at2_rag.model.forks import call_after_fork
from at2_rag.progress import Stopwatch, check_wanted, may_be_abandoned

_LOOK_SECONDS = 0.1  # between two looks of a waiting call at whether it is still wanted


class Turns:
    """Lets only as many threads read at a time as keep the cores busy; the others wait."""

    def __init__(self) -> None:
        self._after_fork()
        call_after_fork(self._after_fork)

    def _after_fork(self) -> None:
        """Forget the parent's threads."""
        self._condition, self._reading = threading.Condition(), 0

    @contextmanager
    def take(self, watch: Stopwatch) -> Iterator[None]:
        """Wait until few enough threads are reading, then read in inference mode; not reentrant."""
        most = most_readers()
        check_wanted()
        with self._condition:
            if self._reading >= most:
                with watch.stage("wait"):
                    while self._reading >= most:
                        self._condition.wait(_LOOK_SECONDS if may_be_abandoned() else None)
                        check_wanted()
            self._reading += 1
        try:
            with torch.inference_mode():
                yield
        finally:
            with self._condition:
                self._reading -= 1
                self._condition.notify_all()  # one of them may have been given up


def most_readers() -> int:
    """Return how many threads may read at a time."""
    # One more than have cores to themselves: while it is in Python, another multiplies.
    return 1 + _cores() // torch.get_num_threads()


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
