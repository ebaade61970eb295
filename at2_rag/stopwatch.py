"""How long the stages of one call took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Seconds per stage, and in all since it was made."""

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

    def timings(self, shared: Mapping[str, float] | None = None) -> dict[str, float]:
        """Return the stages so far and the `total`.

        Args:
            shared: Seconds of further stages that were done for several at once, this one's part;
                the total is then the sum of all stages, since others were waited for too.
        """
        if shared is None:
            return {**self._stages, "total": time.perf_counter() - self._start}
        stages = {**shared, **self._stages}
        return {**stages, "total": sum(stages.values())}

    def part(self, number: int) -> dict[str, float]:
        """Return the stages so far, divided among so many."""
        return {name: seconds / number for name, seconds in self._stages.items()}
