"""How much memory the stages of a run take, kept on disk with what they made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from at2_rag_evals.line_log import append_line, read_lines
from at2_rag_evals.resident_memory import (
    give_back_free_memory,
    reset_peak,
    resident,
    resident_peak,
)


class StagePeaks:
    """The most memory each stage took above what the process held when it began.

    A model counts in the stage that loads it. Over several runs the highest figure stands: a run
    that finds everything stored takes next to nothing.

    Args:
        path: File that the figures are kept in; None for this run only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._peaks: dict[str, int] = {}
        if path is not None:
            read_lines(path, self._take)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure what is done within, where the system can tell (Linux)."""
        give_back_free_memory()
        exact = reset_peak()
        before = resident() if exact else 0
        yield
        if exact:
            self._add(stage, resident_peak() - before)

    def of(self, stage: str) -> int | None:
        """Return a stage's peak in bytes; None where it isn't known."""
        return self._peaks.get(stage)

    def _add(self, stage: str, peak: int) -> None:
        if peak > self._peaks.get(stage, -1):
            self._peaks[stage] = peak
            if self._path is not None:
                append_line(self._path, {"stage": stage, "peak": peak})

    def _take(self, record: Any) -> None:
        self._peaks[str(record["stage"])] = int(record["peak"])
