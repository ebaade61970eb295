"""Starts `endpoint_server.py` and reads what it was asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Served:
    """A running server.

    Attributes:
        url: Its address.
        log: The file of its requests.
    """

    url: str
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def served(
    log: Path, plan: Mapping[str, Sequence[str]] | None = None, *, seconds: float = 0.0
) -> Iterator[Served]:
    """Run the server in a process of its own.

    Args:
        log: Where it writes its requests.
        plan: What requests meet.
        seconds: How long each takes.
    """
    script = Path(__file__).with_name("endpoint_server.py")
    command = [sys.executable, str(script), str(log), json.dumps(plan or {}), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Served(f"http://127.0.0.1:{int(process.stdout.readline())}/v1", log)
        finally:
            process.kill()
