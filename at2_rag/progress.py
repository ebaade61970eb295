"""Progress of long work, and how long its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.control import Control
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import ControlType

LINE_SECONDS = 30.0  # least time between two lines of one stage
_SPEED_SECONDS = 600.0  # over which the bars' time left is estimated


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
        """Return the seconds of each stage and in `total`, divided by `shared_by` requests."""
        total = time.perf_counter() - self._start
        return {name: took / shared_by for name, took in [*self._stages.items(), ("total", total)]}


def added(*timings: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of the seconds of each stage; `total` comes last."""
    sums: dict[str, float] = {}
    for name, seconds in (entry for timing in timings for entry in timing.items()):
        sums[name] = sums.get(name, 0.0) + seconds
    return {**{name: sums[name] for name in sums if name != "total"}, "total": sums["total"]}


@dataclass(slots=True)
class _Stage:
    """When a stage began, after how many steps, and when it last wrote a line."""

    start: float
    done_before: int
    last_line: float
    ended: bool = False
    task: TaskID | None = None


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Show on a terminal what the block does; progress that it shows itself takes that line."""
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        console.print(what, end="\r", markup=False, highlight=False)
    try:
        yield
    finally:
        if console.is_terminal and not console.is_dumb_terminal:
            console.control(Control((ControlType.ERASE_IN_LINE, 2)))


class StepProgress:
    """Shows stages of many steps: bars on a terminal, a line now and then elsewhere.

    Called with a stage's name, the steps done and the steps in all. The first call of a stage
    begins it: steps done by then are shown as done but don't count for the time left. The call
    that has all steps done ends it. Use it in a `with` block.

    The console is standard error by default. Where there are no bars, `write` takes the lines,
    which by default are printed to the console.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.seconds: dict[str, float] = {}  # that each stage has taken so far
        self._write = write or self._print
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        self._bars: Progress | None = None
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                speed_estimate_period=_SPEED_SECONDS,
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show that `done` of a stage's `total` steps are done; None for a total not known yet."""
        now = self._clock()
        stage = self._stages.get(name)
        if stage is None:
            stage = self._stages[name] = _Stage(now, done, now)
            if self._bars is not None:
                stage.task = self._bars.add_task(name, total=total, completed=done)
            elif total is None:
                self._write(name)
        self.seconds[name] = now - stage.start
        if self._bars is not None and stage.task is not None:
            self._bars.update(stage.task, completed=done, total=total)
        elif total is not None and not stage.ended:
            stage.ended = done >= total
            if stage.ended or now - stage.last_line >= LINE_SECONDS:
                stage.last_line = now
                self._write(_line(name, now - stage.start, done - stage.done_before, done, total))

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Show a stage whose steps can't be counted, as busy until its share done is known.

        Yields a function that takes that share, from 0 to 1.
        """
        self(name, 0, None)
        yield lambda share: self(name, round(100 * share), 100)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _line(name: str, elapsed: float, new: int, done: int, total: int) -> str:
    """Return a line; `new` steps were done in the `elapsed` seconds."""
    text = f"{name}: {done}/{total}, {_duration(elapsed)} elapsed"
    if new > 0 and done < total:
        text += f", about {_duration(elapsed / new * (total - done))} left"
    return text


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
