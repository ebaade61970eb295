"""Limits how many threads read at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from at2_rag.progress import Stopwatch


class Turns:
    """Lets only as many threads read at a time as keep the cores busy; the others wait."""

    def __init__(self) -> None:
        self._condition, self._reading = threading.Condition(), 0

    @contextmanager
    def take(self, watch: Stopwatch) -> Iterator[None]:
        """Wait until few enough threads are reading; not to be taken again within."""
        # One more than have cores to themselves: while it is in Python, another multiplies.
        most = 1 + _cores() // torch.get_num_threads()
        with self._condition:
            if self._reading >= most:
                with watch.stage("wait"):
                    self._condition.wait_for(lambda: self._reading < most)
            self._reading += 1
        try:
            yield
        finally:
            with self._condition:
                self._reading -= 1
                self._condition.notify()


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
