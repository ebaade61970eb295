"""How long the stages of one call took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Seconds per stage, and since it was made."""

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

    def timings(
        self, shared: Mapping[str, float] | None = None, *, elapsed: bool = True
    ) -> dict[str, float]:
        """Return the stages so far and the `total`.

        Args:
            shared: Seconds of further stages that another watch took, this one's part.
            elapsed: Whether the total is the time since the watch was made, or the sum of all
                stages, where others were waited for meanwhile.
        """
        stages = {**(shared or {}), **self._stages}
        total = time.perf_counter() - self._start if elapsed else sum(stages.values())
        return {**stages, "total": total}

    def part(self, number: int) -> dict[str, float]:
        """Return the stages so far, divided among so many."""
        return {name: seconds / number for name, seconds in self._stages.items()}
