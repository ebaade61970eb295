"""Real server processes on loopback ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 600.0


@dataclass
class ServerProcess:
    """A running `at2-rag serve`, and what it logged so far."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    listening: threading.Event = field(default_factory=threading.Event)

    def read_log(self) -> None:
        """Read what the process writes until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"message": line.rstrip(), "logger": "not JSON"}
            self.log.append(record)
            if "Uvicorn running on " in record["message"]:
                self.url = record["message"].split()[3]
                self.listening.set()
        self.listening.set()

    def stop(self) -> int:
        """Tell the process to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def post(self, path: str, body: Any, **settings: Any) -> httpx.Response:
        """Post JSON."""
        return httpx.post(self.url + path, json=body, timeout=120, **settings)


@contextmanager
def served(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run `at2-rag serve` on a free port."""
    command: Sequence[str] = (sys.executable, "-m", "at2_rag", "serve", "--port", "0", *arguments)
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AT2_RAG_CONFIG": os.devnull, **(environment or {})},
    )
    server = ServerProcess(process)
    reader = threading.Thread(target=server.read_log, daemon=True)
    reader.start()
    try:
        assert server.listening.wait(START_SECONDS) and server.url, server.log
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join(10)


def tiny_arguments(model: Path, weights: Path) -> list[str]:
    """Return the options that serve a tiny model with its head weights."""
    return ["--model", str(model), "--head-weights", str(weights), "--dtype", "float32"]
