"""How much memory the stages of a run take, kept on disk with what they made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from at2_rag.training.commands.record import peak_memory_mb
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
    that finds everything stored takes next to nothing, and one that goes on where another was
    killed only what the rest takes. Known on Linux alone.

    Args:
        path: File that the figures are kept in; None for this run only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._peaks: dict[str, int] = {}
        self._highest_mb = 0
        if path is not None:
            read_lines(path, self._take)

    @contextmanager
    def measure(self, stage: str) -> Iterator[Callable[[], None]]:
        """Measure what is done within.

        Yields:
            What to call now and then, so that a killed run leaves what it took until then.
        """
        give_back_free_memory()
        self._note_highest()
        if not reset_peak():
            yield lambda: None
            return
        before = resident()

        def note() -> None:
            self._add(stage, resident_peak() - before)

        yield note
        note()
        self._note_highest()

    def of(self, stage: str) -> int | None:
        """Return a stage's peak in bytes; None where it isn't known."""
        return self._peaks.get(stage)

    def of_process_mb(self) -> int | None:
        """Return the most MB this process has held so far; None where it isn't known."""
        self._note_highest()
        return self._highest_mb or None

    def _note_highest(self) -> None:
        """Keep the peak so far, which the next reset makes the system forget."""
        self._highest_mb = max(self._highest_mb, peak_memory_mb() or 0)

    def _add(self, stage: str, peak: int) -> None:
        if peak > self._peaks.get(stage, -1):
            self._peaks[stage] = peak
            if self._path is not None:
                append_line(self._path, {"stage": stage, "peak": peak})

    def _take(self, record: Any) -> None:
        self._peaks[str(record["stage"])] = int(record["peak"])
