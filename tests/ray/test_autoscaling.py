"""`at2-rag ray serve --max-replicas`: under load another replica starts, and takes requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("ray", reason="the extra ray isn't installed")

from tests.ray.conftest import START_SECONDS, ray_served
from tests.server.questions import QUERY

CALLERS = 6
DOCUMENTS = [f"Night {night}. " + "The sea was calm. " * 60 for night in range(10)]


def test_load_brings_another_replica(loading: list[str]) -> None:
    options = ["--max-replicas", "2", "--target-requests", "1", "--timeout", "600"]
    with ray_served(*loading, "--dtype", "float32", *options, replicas=1) as server:
        assert len(server.replicas) == 1
        statuses: list[int] = []
        enough = threading.Event()

        def load(caller: int) -> None:
            while not enough.is_set():  # new chunks each time, so that a request takes a while
                documents = [f"{caller} {len(statuses)} {text}" for text in DOCUMENTS]
                response = server.post("/v2/rerank", {"query": QUERY, "documents": documents})
                statuses.append(response.status_code)

        def documents_scored() -> set[float]:
            sessions = map(str, range(20))
            return {server.metric("at2_rag_documents_total", session) for session in sessions}

        deadline = time.monotonic() + START_SECONDS
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(load, caller) for caller in range(CALLERS)]
            try:
                while len(server.replicas) < 2:
                    assert time.monotonic() < deadline, server.log[-50:]
                    time.sleep(0.5)
            finally:
                enough.set()
            for each in calls:
                each.result()
        assert set(statuses) == {200}
        while len(documents_scored()) < 2:  # each replica counts its own
            assert time.monotonic() < deadline, server.log[-50:]
            time.sleep(0.5)
