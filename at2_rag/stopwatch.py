"""How long the stages of a call took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Takes the seconds of each stage, and since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage, or as more of it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def seconds(self, *, shared_by: int = 1) -> dict[str, float]:
        """Return the seconds of each stage and in `total`.

        Args:
            shared_by: How many requests were served at once; each gets an equal part.
        """
        total = time.perf_counter() - self._start
        return {name: took / shared_by for name, took in [*self._stages.items(), ("total", total)]}


def added(*timings: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of the seconds of each stage; `total` comes last."""
    sums: dict[str, float] = {}
    for name, seconds in (entry for timing in timings for entry in timing.items()):
        sums[name] = sums.get(name, 0.0) + seconds
    return {**{name: sums[name] for name in sums if name != "total"}, "total": sums["total"]}
