"""`at2-rag ray serve`: answers, where requests go, a replica that dies, too many requests."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray", reason="the extra ray isn't installed")

from at2_rag import AT2Pruner
from tests.ray.conftest import START_SECONDS, RayServer, ray_served
from tests.server.questions import DOCUMENTS, QUERY

RANKING = {"query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def server(loading: list[str]) -> Iterator[RayServer]:
    """Two replicas, which hold eight requests each."""
    options = ["--max-requests", "8", "--body-timeout", "300", "--timeout", "600"]
    with ray_served(*loading, "--dtype", "float32", *options) as running:
        yield running


@pytest.fixture(scope="module")
def expected(model_folder: Path, weights_folder: Path) -> dict[int, float]:
    """The probability of each document, by the library."""
    pruner = AT2Pruner.from_pretrained(model_folder, head_weights=weights_folder, dtype="float32")
    return {chunk.index: chunk.probability or 0.0 for chunk in pruner.score(QUERY, DOCUMENTS)}


@pytest.mark.parametrize(
    ("path", "body", "rows", "score"),
    [
        ("/v2/rerank", RANKING, "results", "relevance_score"),
        ("/v1/rerank", RANKING, "results", "relevance_score"),
        ("/v1/rerank", {**RANKING, "top_k": 5}, "data", "relevance_score"),  # Voyage
        ("/rerank", RANKING, "results", "relevance_score"),  # vLLM
        ("/rerank", {"query": QUERY, "texts": DOCUMENTS}, None, "score"),  # TEI
    ],
)
def test_scores_of_each_shape_are_those_of_the_library(
    server: RayServer,
    expected: dict[int, float],
    path: str,
    body: Any,
    rows: str | None,
    score: str,
) -> None:
    response = server.post(path, body, headers={"X-Request-Id": "one-id"})
    assert response.status_code == 200, response.text
    answer = response.json()
    got = {row["index"]: row[score] for row in (answer[rows] if rows else answer)}
    assert got == pytest.approx(expected, abs=1e-6)
    assert response.headers.get_list("x-request-id") == ["one-id"]


def test_results_of_several_questions_are_streamed(server: RayServer) -> None:
    questions = [{"query": name, "chunks": DOCUMENTS} for name in ("Who?", "Where?", "When?")]
    response = server.post("/v1/prune", {"requests": questions, "top_k": 2})
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert sorted(line["index"] for line in lines) == [0, 1, 2]
    assert all(len(line["result"]["kept"]) == 2 for line in lines)


def test_errors_have_the_form_of_their_path(server: RayServer) -> None:
    response = server.post("/v2/rerank", {**RANKING, "model": "unknown"})
    assert response.status_code == 404 and "served are" in response.json()["message"]


def test_a_session_stays_on_one_replica_which_keeps_its_chunks(server: RayServer) -> None:
    def misses(session: str) -> float:
        return server.metric('at2_rag_cache_reads_total{outcome="miss"}', session)

    sessions = [f"corpus {number}" for number in range(12)]
    for session in sessions:
        body = {"query": QUERY, "documents": [f"{session}: {text}" for text in DOCUMENTS]}
        headers = {"X-Session-Id": session}
        assert server.post("/v2/rerank", body, headers=headers).status_code == 200
        read = misses(session)
        for _ in range(3):
            assert server.post("/v2/rerank", body, headers=headers).status_code == 200
        assert misses(session) == read, "on another replica the chunks would be read anew"
    most = max(misses(session) for session in sessions)
    assert most < len(sessions) * len(DOCUMENTS), "no replica has all of them"


def test_a_client_that_leaves_frees_its_replica(server: RayServer) -> None:
    session = {"X-Session-Id": "one that leaves"}
    long = [f"Night {night}. " + "The wind was cold. " * 120 for night in range(120)]
    body = {"query": QUERY, "documents": long}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v2/rerank", json=body, headers=session, timeout=1)
    gone = 'at2_rag_requests_total{path="/v2/rerank",status="499"} 1.0'
    deadline = time.monotonic() + START_SECONDS
    while gone not in httpx.get(f"{server.url}/metrics", headers=session, timeout=60).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.metric("at2_rag_queue_tokens", session["X-Session-Id"]) == 0


def test_overload_is_answered_429_and_nothing_else(server: RayServer) -> None:
    def post(_: int) -> httpx.Response:
        return server.post("/v2/rerank", RANKING, headers={"X-Session-Id": "all of them"})

    with ThreadPoolExecutor(100) as pool:
        responses = list(pool.map(post, range(400)))
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 429}, statuses
    for response in responses:
        if response.status_code == 429:
            assert 1 <= int(response.headers["retry-after"]) <= 60


def test_a_killed_replica_loses_no_request_that_is_sent_again(server: RayServer) -> None:
    long = [f"Night {night}. " + "The sea was calm. " * 60 for night in range(20)]
    first_tries: list[int] = []

    def call(number: int) -> dict[int, float]:
        deadline = time.monotonic() + START_SECONDS
        tries = 0
        while time.monotonic() < deadline:
            try:
                # New chunks each time, so that the requests take a while.
                documents = [f"{number} {tries} {text}" for text in long]
                response = server.post("/v2/rerank", {"query": QUERY, "documents": documents})
                status = response.status_code
            except httpx.HTTPError:
                status = 0
            if not tries:
                first_tries.append(status)
            if status == 200:
                rows = response.json()["results"]
                assert len(rows) == len(long)
                return {row["index"]: row["relevance_score"] for row in rows}
            assert status in (0, 429, 500, 503), response.text
            tries += 1
            time.sleep(0.2)
        raise AssertionError(f"request {number} was never answered")

    before = {replica.pid for replica in server.replicas}
    assert len(before) == 2
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number) for number in range(40)]
        while first_tries.count(200) < 8:
            time.sleep(0.01)
        server.replicas[0].kill()  # SIGKILL
        assert len([each.result() for each in calls]) == 40
    assert any(status not in (200, 429) for status in first_tries), "the kill hit some"
    deadline = time.monotonic() + START_SECONDS
    while len({replica.pid for replica in server.replicas}) < 2:  # Ray starts another
        assert time.monotonic() < deadline
        time.sleep(1)
    assert {replica.pid for replica in server.replicas} != before


def test_term_finishes_what_was_accepted(server: RayServer) -> None:
    """The last test of the module, since the server ends."""
    long = [f"Night {night}. " + "The sea was calm. " * 120 for night in range(60)]
    body, session = {"query": QUERY, "documents": long}, {"X-Session-Id": "the last"}
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.post, "/v2/rerank", body, headers=session)
        while server.metric("at2_rag_in_flight", session["X-Session-Id"]) < 1:
            assert not accepted.done()
        server.process.send_signal(signal.SIGTERM)
        assert accepted.result().status_code == 200
    assert server.process.wait(120) == 0
