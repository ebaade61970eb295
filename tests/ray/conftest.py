"""A cluster of two workers, which each test or module starts for itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.tiny_weights import calibrated_folder

START_SECONDS = 900.0

_PATIENT = {
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "60",
    "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "60",
}
"""So that no replica is passed over because the machine is busy."""


@dataclass
class RayServer:
    """A running `at2-rag ray serve`, and what it wrote so far."""

    process: subprocess.Popen[str]
    url: str
    log: list[str] = field(default_factory=list)

    def post(self, path: str, body: Any, **settings: Any) -> httpx.Response:
        """Post JSON."""
        return httpx.post(self.url + path, json=body, timeout=600, **settings)

    @property
    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas that live."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in below if "ServeReplica" in " ".join(command_of(each))]

    def metric(self, name: str, session: str) -> float:
        """Return a number that the replica of a session counts."""
        headers = {"X-Session-Id": session}
        page = httpx.get(self.url + "/metrics", headers=headers, timeout=60).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])

    def wait_until_ready(self, replicas: int) -> None:
        """Return once so many replicas take requests."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log[-50:]
            try:
                # Ray's own page of health says when its proxy routes.
                answers = httpx.get(self.url + "/ready", timeout=60).status_code == 200
            except httpx.HTTPError:
                answers = False
            if answers and len(self.replicas) >= replicas:
                return
            time.sleep(1)


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; empty once it has ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextmanager
def ray_served(*arguments: str, replicas: int = 2) -> Iterator[RayServer]:
    """Run `at2-rag ray serve` on a free port, on a cluster that begins and ends with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "at2_rag", "ray", "serve", "--port", port]
    process = subprocess.Popen(
        [*command, "--replicas", str(replicas), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **_PATIENT, "AT2_RAG_CONFIG": os.devnull, "RAY_ADDRESS": "local"},
    )
    server = RayServer(process, f"http://127.0.0.1:{port}")
    assert process.stdout is not None
    reader = threading.Thread(target=server.log.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        server.wait_until_ready(replicas)
        yield server
    finally:
        below: list[psutil.Process] = []
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
        for each in below:  # Ray's own, which a killed command leaves behind
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        reader.join(10)


@pytest.fixture(scope="session")
def weights_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with calibrated head weights for the tiny model."""
    return calibrated_folder(model_folder, tmp_path_factory.mktemp("calibrated-weights"))


@pytest.fixture(scope="session")
def loading(model_folder: Path, weights_folder: Path) -> list[str]:
    """Options that load the tiny model with its head weights."""
    return ["--model", str(model_folder), "--head-weights", str(weights_folder)]
