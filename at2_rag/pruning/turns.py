"""Threads that read take turns, so that they don't get in each other's way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from at2_rag.stopwatch import Stopwatch


class Turns:
    """Lets only so many threads read at a time as keep the cores busy; the others wait.

    A thread that has its turn may take it again within: what it holds between two readings no other
    thread holds meanwhile.
    """

    def __init__(self) -> None:
        self._waiting, self._reading = threading.Condition(), 0
        self._own = threading.local()

    @contextmanager
    def take(self, watch: Stopwatch) -> Iterator[None]:
        """Wait until few enough threads are reading.

        Args:
            watch: Takes the time of "wait".
        """
        if getattr(self._own, "taken", False):
            yield
            return
        # One more than have cores to themselves: while it is in Python, another multiplies.
        most = 1 + _cores() // torch.get_num_threads()
        with self._waiting:
            if self._reading >= most:
                with watch.stage("wait"):
                    self._waiting.wait_for(lambda: self._reading < most)
            self._reading += 1
        self._own.taken = True
        try:
            yield
        finally:
            self._own.taken = False
            with self._waiting:
                self._reading -= 1
                self._waiting.notify()


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
