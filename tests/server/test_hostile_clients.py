"""Clients that send too much, stop half-way, read nothing, or come all at once."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.processes import ServerProcess, served
from tests.server.questions import DOCUMENTS, QUERY
from tests.server.test_operation import metric, wait_until

JSON = {"Content-Type": "application/json"}
LARGE: dict[str, Any] = {
    "query": QUERY,
    "chunks": [{"text": "Ada wrote it.", "metadata": {"note": "x" * 7_000_000}}],
}
"""Has few tokens, and an answer that no socket's buffers hold."""


@pytest.fixture(scope="module")
def roomy(arguments: list[str]) -> Iterator[ServerProcess]:
    """A server with the limits that it has by default, but for slow clients on a busy machine."""
    with served(*arguments, "--body-timeout", "120", "--timeout", "600") as running:
        yield running


@pytest.fixture(scope="module")
def narrow(arguments: list[str]) -> Iterator[ServerProcess]:
    """A server with little patience, and room for one large body."""
    limits = ["--timeout", "8", "--max-body-bytes", "8000000", "--max-bytes-in-flight", "9000000"]
    with served(*arguments, *limits) as running:
        yield running


def connection_to(server: ServerProcess) -> socket.socket:
    """Return a connection with a small buffer for what comes."""
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((address.hostname, address.port))
    return connection


def head(path: str, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: h", "Content-Type: application/json", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def request(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return head(path, f"Content-Length: {len(data)}") + data


def most_memory(server: ServerProcess) -> int:
    """Return the most bytes of memory that the process ever had."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("this system doesn't tell the memory of a process")
    [line] = [one for one in status.read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


MILLIONS = [5] * 2_000_000


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/rerank", {"query": QUERY, "documents": [5] * 100_000}, 413),
        ("/v1/rerank", {"query": QUERY, "documents": [5] * 100_000}, 413),
        ("/v1/rerank", {"query": QUERY, "documents": MILLIONS}, 413),
        ("/rerank", {"query": QUERY, "texts": MILLIONS}, 413),
        ("/v1/prune", {"query": QUERY, "chunks": MILLIONS}, 413),
        ("/v1/prune", {"requests": MILLIONS}, 413),
        ("/v1/prune", {"requests": [{"query": QUERY, "chunks": MILLIONS}]}, 413),
        ("/v1/prune", {"query": QUERY, "chunks": ["a"], "history": MILLIONS}, 422),
        ("/v1/prune", {"query": QUERY, "chunks": ["a"], "protect": MILLIONS}, 422),
        (
            "/v1/prune",
            {"query": QUERY, "chunks": [], **dict.fromkeys(map(str, range(300_000)), 0)},
            422,
        ),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "rank_fields": MILLIONS}, 422),
        ("/v1/attribute", {"query": QUERY, "answer": "a", "chunks": ["a"], "span": MILLIONS}, 422),
    ],
    ids=range(12),
)
def test_millions_of_wrong_items_take_little_memory(
    roomy: ServerProcess, path: str, body: dict[str, Any], status: int
) -> None:
    before = most_memory(roomy)
    content = json.dumps(body, separators=(",", ":"))
    assert len(content) < 2**22, "else it is refused for its size alone"
    response = httpx.post(roomy.url + path, content=content, headers=JSON, timeout=120)
    assert response.status_code == status, response.text
    assert most_memory(roomy) - before < 300e6


def test_a_body_that_says_that_it_is_too_large_is_refused_at_once(roomy: ServerProcess) -> None:
    with closing(connection_to(roomy)) as connection:
        connection.sendall(head("/v2/rerank", "Content-Length: 1000000000"))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_a_body_that_has_no_end_is_refused_and_not_kept(roomy: ServerProcess) -> None:
    before, part = most_memory(roomy), b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with closing(connection_to(roomy)) as connection:
        connection.sendall(head("/v2/rerank", "Transfer-Encoding: chunked"))
        for _ in range(4_000):  # 260 MB, unless an answer comes
            connection.sendall(part)
            if select.select([connection], [], [], 0)[0]:
                break
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
    assert most_memory(roomy) - before < 100e6


def test_a_body_that_is_cut_off_is_forgotten(roomy: ServerProcess) -> None:
    with closing(connection_to(roomy)) as connection:
        named = head("/v2/rerank", "Content-Length: 100", "X-Request-Id: cut-off")
        connection.sendall(named + b'{"query": ')
        wait_until(roomy, "at2_rag_body_bytes", 10)
    wait_until(roomy, "at2_rag_in_flight", 0)
    assert metric(roomy, "at2_rag_body_bytes") == 0
    deadline = time.monotonic() + 30
    while not (records := [one for one in roomy.log if one.get("request_id") == "cut-off"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [record["status"] for record in records] == [499]
    assert roomy.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS}).status_code == 200


def test_no_regular_expression_of_a_client_is_run(roomy: ServerProcess) -> None:
    slow = "(a+)+$"  # takes a day on the text
    asked: dict[str, Any] = {"query": QUERY, "chunks": ["a" * 40 + "!", f"So {slow} is it."]}
    assert roomy.post("/v1/prune", {**asked, "protect": slow}).status_code == 422
    kept = roomy.post("/v1/prune", {**asked, "top_k": 1, "protect": [slow]}).json()["kept"]
    assert 1 in [chunk["index"] for chunk in kept]
    assert httpx.get(f"{roomy.url}/live", timeout=60).status_code == 200


def test_a_thousand_requests_at_once_are_answered_or_refused(roomy: ServerProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_000:
        pytest.skip("this process may not open so many connections")
    body = {"query": QUERY, "documents": DOCUMENTS[:2]}

    async def post_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=600) as client:
            posts = [client.post(f"{roomy.url}/v2/rerank", json=body) for _ in range(1_000)]
            return await asyncio.gather(*posts)

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_000), hard))
    try:
        responses = asyncio.run(post_all())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {response.status_code for response in responses} <= {200, 429}
    assert all("retry-after" in one.headers for one in responses if one.status_code == 429)
    assert any(response.status_code == 200 for response in responses)
    wait_until(roomy, "at2_rag_in_flight", 0)


def test_bodies_in_flight_are_bounded_together(narrow: ServerProcess) -> None:
    with closing(connection_to(narrow)) as connection:
        connection.sendall(head("/v2/rerank", "Content-Length: 7000000") + b" " * 6_999_999)
        wait_until(narrow, "at2_rag_body_bytes", 6_999_999)
        refused = httpx.post(
            f"{narrow.url}/v2/rerank", content=b" " * 3_000_000, headers=JSON, timeout=60
        )
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert "at most 9,000,000 may be" in refused.json()["message"]
        small = narrow.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS})
        assert small.status_code == 200
    wait_until(narrow, "at2_rag_body_bytes", 0)


def test_a_client_that_reads_nothing_is_left(narrow: ServerProcess) -> None:
    with closing(connection_to(narrow)) as connection:
        connection.sendall(request("/v1/prune", LARGE))
        wait_until(narrow, "at2_rag_in_flight", 1)
        wait_until(narrow, "at2_rag_in_flight", 0)
        received = 0
        with suppress(ConnectionResetError):
            while data := connection.recv(65_536):
                received += len(data)
    assert 0 < received < 7_000_000


def test_an_answer_that_is_read_slowly_arrives_although_the_server_stops(
    arguments: list[str],
) -> None:
    with (
        served(*arguments, "--max-body-bytes", "8000000") as server,
        closing(connection_to(server)) as connection,
    ):
        connection.sendall(request("/v1/prune", LARGE))
        answer = connection.recv(1_000)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(3)  # more than a stop takes where nothing is waited for
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1_000)
        start, body = answer.split(b"\r\n\r\n", 1)
        [length] = [
            one for one in start.lower().split(b"\r\n") if one.startswith(b"content-length")
        ]
        received = bytearray(body)
        while data := connection.recv(65_536):
            received += data
            if len(received) % 7 == 0:
                time.sleep(0.01)
        assert len(received) == int(length.split()[1]) > 7_000_000
        assert json.loads(received)["kept"][0]["metadata"] == LARGE["chunks"][0]["metadata"]
        assert server.process.wait(60) == 0
