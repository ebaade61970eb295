"""How a slow start shows itself: a bar a stage on a terminal, a log line a stage elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


class StageProgress:
    """Progress of stages that run one after the other, shown on standard error.

    Args:
        show: Whether to draw bars; None for yes where standard error is a terminal. Without
            bars each stage is one log line of level INFO.
    """

    def __init__(self, show: bool | None = None) -> None:
        if show is None:
            show = sys.stderr is not None and sys.stderr.isatty()
        self.show = show

    @contextmanager
    def stage(self, text: str) -> Iterator[Callable[[float], None]]:
        """Run one stage.

        Args:
            text: What is being done, for people.

        Yields:
            A function that takes the share that is done, from 0 to 1; a stage that never calls
            it is drawn as busy for as long as it lasts.
        """
        if not self.show:
            _log.info("%s", text)
            yield lambda share: None
            return

        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(text, total=None)
            yield lambda share: progress.update(task, completed=share, total=1.0)
            progress.update(task, completed=1.0, total=1.0)
