"""Keys, limits, slow and vanishing clients, the end: with real processes and connections."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from at2_rag import InputError
from at2_rag.server.service import Service
from at2_rag.server.settings import ServerSettings
from tests.server.processes import ServerProcess, served
from tests.server.questions import DOCUMENTS, QUERY
from tests.tiny_weights import tiny_pruner

BODY = {"query": QUERY, "documents": DOCUMENTS}
LONG: dict[str, Any] = {
    "query": QUERY,
    "documents": [f"Night {night}. " + "The sea was calm. " * 120 for night in range(130)],
}
"""Takes a while to read, with some 95,000 tokens."""


@pytest.fixture(scope="module")
def small(
    arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with keys and narrow limits, set in all ways that there are."""
    folder = tmp_path_factory.mktemp("operation")
    (folder / "keys.txt").write_text("# two\nfirst-key\n\nsecond-key\n")
    (folder / "config.toml").write_text(
        'max-requests = 7\n[serve]\nmax-request-tokens = 100_000\nmodel-name = ["mine"]\n'
    )
    environment = {
        "AT2_RAG_API_KEYS": "third-key,fourth-key",
        "AT2_RAG_CONFIG": str(folder / "config.toml"),
        "AT2_RAG_MAX_QUEUE_TOKENS": "60000",
        "AT2_RAG_SERVE_MAX_REQUESTS": "3",
        "AT2_RAG_API_KEY_FILE": str(folder / "keys.txt"),
    }
    with served(
        *arguments, "--body-timeout", "1", "--max-body-bytes", "9000000", environment=environment
    ) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def metric(server: ServerProcess, name: str) -> float:
    page = httpx.get(f"{server.url}/metrics", timeout=60).text
    lines = [line.split() for line in page.splitlines() if line.startswith(name + " ")]
    return float(lines[0][1])


def wait_until(server: ServerProcess, name: str, value: float) -> None:
    deadline = time.monotonic() + 60
    while metric(server, name) != value:
        assert time.monotonic() < deadline, f"{name} is {metric(server, name)}"
        time.sleep(0.05)


@pytest.mark.parametrize("key", ["first-key", "second-key", "third-key", "fourth-key"])
def test_any_of_the_keys_opens(small: ServerProcess, key: str) -> None:
    assert small.post("/v2/rerank", BODY, headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("first-ke"),
        bearer("# two"),
        {"Authorization": "Bearer"},
        {"Authorization": "first-key"},
        {"Authorization": "Basic first-key"},
        {"X-Api-Key": "first-key"},
    ],
)
def test_nothing_else_does(small: ServerProcess, headers: dict[str, str]) -> None:
    for path in ("/v2/rerank", "/v1/prune", "/v1/index", "/nowhere"):
        response = small.post(path, BODY, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{small.url}/info", headers=headers).status_code == 401
    assert httpx.get(f"{small.url}/openapi.json", headers=headers).status_code == 401


def test_an_unmodified_client_sees_that_its_key_is_wrong(small: ServerProcess) -> None:
    cohere = pytest.importorskip("cohere")
    for version in (cohere.Client, cohere.ClientV2):
        with pytest.raises(cohere.errors.UnauthorizedError):
            version(api_key="wrong", base_url=small.url).rerank(model="at2-rag", **BODY)
        version(api_key="first-key", base_url=small.url).rerank(model="at2-rag", **BODY)


def test_probes_metrics_and_page_need_no_key(small: ServerProcess) -> None:
    for path in ("/live", "/ready", "/health", "/metrics", "/"):
        assert httpx.get(small.url + path).status_code == 200, path
    info = httpx.get(f"{small.url}/info", headers=bearer("first-key")).json()
    limits = (info["max_concurrent_requests"], info["max_request_tokens"], info["max_queue_tokens"])
    assert limits == (3, 100_000, 60_000), "a variable wins over the file, and that over a default"
    assert "mine" in info["model_names"]
    assert "first-key" not in json.dumps(info) + json.dumps(small.log)


def connection_to(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def head(body: bytes, key: str = "first-key") -> bytes:
    return (
        f"POST /v2/rerank HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


def test_slow_headers_and_slow_bodies_are_given_up(small: ServerProcess) -> None:
    silent, header, body = (connection_to(small) for _ in range(3))
    with closing(silent), closing(header), closing(body):
        header.sendall(b"GET /live HTTP/1.1\r\n")
        body.sendall(head(b" " * 100) + b" ")
        answer = b""
        while b"after 1 s" not in answer and (part := body.recv(65_536)):  # may come in parts
            answer += part
        assert answer.startswith(b"HTTP/1.1 408") and b"after 1 s" in answer
        assert header.recv(65_536) == b"" and silent.recv(65_536) == b""
    assert metric(small, "at2_rag_in_flight") == 0


def test_a_connection_stays_open_if_a_body_comes_after_its_answer(small: ServerProcess) -> None:
    body = json.dumps(BODY).encode()
    with closing(connection_to(small)) as connection:
        connection.sendall(head(body, "wrong"))
        answer = b""
        while b"key" not in answer.partition(b"\r\n\r\n")[2]:
            answer += connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 401")
        connection.sendall(body)
        time.sleep(1.5)  # longer than the headers of a request may take
        connection.sendall(head(body) + body)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_frees_the_worker(small: ServerProcess) -> None:
    body = json.dumps(LONG).encode()
    with closing(connection_to(small)) as connection:
        connection.sendall(head(body) + body)
        wait_until(small, "at2_rag_in_flight", 1)
        wait_until(small, "at2_rag_queue_questions", 0)
    wait_until(small, "at2_rag_in_flight", 0)
    wait_until(small, "at2_rag_queue_tokens", 0)
    assert small.post("/v2/rerank", BODY, headers=bearer("first-key")).status_code == 200
    assert any(record.get("status") == 499 for record in small.log)


def test_beyond_the_limits_there_is_only_429(small: ServerProcess) -> None:
    def post(_: int) -> httpx.Response:
        return small.post("/v2/rerank", BODY, headers=bearer("first-key"))

    with ThreadPoolExecutor(40) as pool:
        responses = list(pool.map(post, range(200)))
    statuses = [response.status_code for response in responses]
    assert set(statuses) <= {200, 429} and 200 in statuses
    for response in responses:
        if response.status_code == 429:
            assert 1 <= int(response.headers["retry-after"]) <= 60
    wait_until(small, "at2_rag_in_flight", 0)


def test_a_full_queue_refuses(small: ServerProcess) -> None:
    def post(_: int) -> httpx.Response:
        return small.post("/v2/rerank", LONG, headers=bearer("first-key"))

    with ThreadPoolExecutor(3) as pool:
        responses = sorted(pool.map(post, range(3)), key=lambda response: response.status_code)
    assert [response.status_code for response in responses][::2] == [200, 429]
    assert "tokens wait or are read" in responses[-1].json()["message"]


def test_too_many_tokens_are_refused_with_both_numbers(small: ServerProcess) -> None:
    longer = {**LONG, "documents": LONG["documents"] * 3}
    response = small.post("/v2/rerank", longer, headers=bearer("first-key"))
    assert response.status_code == 422
    assert "at most 100,000 are taken" in response.json()["message"]
    batch = {"requests": [{"query": "Who?", "chunks": LONG["documents"]}] * 3}
    response = small.post("/v1/prune", batch, headers=bearer("first-key"))
    assert response.status_code == 422 and "several requests" in response.json()["message"]
    response = small.post("/v1/index", {"chunks": longer["documents"]}, headers=bearer("first-key"))
    assert response.status_code == 422 and "at most 100,000" in response.json()["message"]


def test_an_answer_that_takes_too_long_is_given_up(arguments: list[str]) -> None:
    with served(*arguments, "--timeout", "0.001") as server:
        response = server.post("/v2/rerank", BODY)
        assert response.status_code == 504 and "within 0.001 s" in response.json()["message"]
        batch = {"requests": [{"query": "Who?", "chunks": ["a"]}]}
        response = server.post("/v1/prune", batch)
        assert response.status_code in (200, 504), "preparing it may take too long already"
        assert json.loads(response.text)["error"] == "timeout"


def test_term_under_load_loses_no_accepted_request(arguments: list[str]) -> None:
    with served(*arguments) as server:
        outcomes: list[int | str] = []

        def call(_: int) -> None:
            while True:
                try:
                    outcomes.append(server.post("/v2/rerank", BODY).status_code)
                except httpx.ConnectError:  # the server has stopped; nothing was sent
                    return
                except httpx.HTTPError as error:
                    outcomes.append(repr(error))

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(call, number) for number in range(8)]
            while outcomes.count(200) < 20:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            for one in calls:
                one.result()
        assert server.process.wait(60) == 0
    answered = [one["status"] for one in server.log if one.get("path") == "/v2/rerank"]
    # What the server read it answered, and each answer arrived; a connection that it closed before
    # a request was read on it has none.
    assert set(answered) <= {200, 503}, answered
    assert sorted(answered) == sorted(one for one in outcomes if isinstance(one, int))
    others = {one for one in outcomes if isinstance(one, str)}
    closed = ("without sending a response", "Connection reset by peer")
    assert all(any(text in one for text in closed) for one in others), others


def test_a_draining_server_finishes_what_it_has_and_says_so(arguments: list[str]) -> None:
    body = json.dumps(BODY).encode()
    with (
        served(*arguments, "--body-timeout", "60") as server,
        closing(connection_to(server)) as connection,
    ):
        connection.sendall(head(body) + body[:-1])  # in flight for as long as the test wants
        wait_until(server, "at2_rag_in_flight", 1)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while httpx.get(f"{server.url}/ready", timeout=60).status_code == 200:
            assert time.monotonic() < deadline
        assert httpx.get(f"{server.url}/live", timeout=60).status_code == 200
        refused = server.post("/v2/rerank", BODY)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        connection.sendall(body[-1:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(60) == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_a_deadline_or_a_second_signal_ends_a_drain(arguments: list[str], signals: int) -> None:
    seconds = {1: "0", 2: "600"}[signals]
    with (
        served(*arguments, "--body-timeout", "600", "--drain-seconds", seconds) as server,
        closing(connection_to(server)) as connection,
    ):
        connection.sendall(head(b" " * 10))  # and never the body
        wait_until(server, "at2_rag_in_flight", 1)
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert server.process.wait(60) == {1: 0, 2: -signal.SIGTERM}[signals]
        assert connection.recv(65_536).startswith(b"HTTP/1.1 503")


def test_uncalibrated_weights_are_refused() -> None:
    with pytest.raises(InputError, match="aren't calibrated"):
        Service(tiny_pruner("uniform"), None, ServerSettings())
