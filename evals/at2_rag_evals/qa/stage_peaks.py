"""How much memory the stages of a run take, stored with what they made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from at2_rag.training.commands.record import peak_memory_mb
from at2_rag_evals.resident_memory import (
    give_back_free_memory,
    reset_peak,
    resident,
    resident_peak,
)
from at2_rag_evals.store import Store


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes a stage took above what the process held when it began."""

    bytes: int


class StagePeaks:
    """The most memory each stage took.

    A model counts in the stage that loads it. The highest figure of several runs stays: a run that
    finds everything stored takes next to nothing. Known on Linux alone.

    Args:
        path: The store's file; None to remember the figures for this run only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._store = Store(path, "stage peaks", Peak)
        self._highest_mb = 0

    @contextmanager
    def measure(self, stage: str) -> Iterator[Callable[[], None]]:
        """Measure what is done within.

        Yields:
            What to call now and then, so that a killed run stores what it took until then.
        """
        give_back_free_memory()
        self._note_highest()
        if not reset_peak():
            yield lambda: None
            return
        before = resident()

        def note() -> None:
            peak = resident_peak() - before
            if peak > (self.of(stage) or -1):
                self._store[stage] = Peak(peak)

        yield note
        note()
        self._note_highest()

    def of(self, stage: str) -> int | None:
        """Return a stage's peak in bytes; None where it isn't known."""
        peak = self._store.get(stage)
        return None if peak is None else peak.bytes

    def of_process_mb(self) -> int | None:
        """Return the most MB this process has held so far; None where it isn't known."""
        self._note_highest()
        return self._highest_mb or None

    def _note_highest(self) -> None:
        """Keep the peak so far, which the next reset makes the system forget."""
        self._highest_mb = max(self._highest_mb, peak_memory_mb() or 0)
