"""What no client should send: each is refused in the shape of its path, and the server goes on."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.processes import ServerProcess
from tests.server.questions import DOCUMENTS, QUERY

GOOD = {"query": QUERY, "documents": DOCUMENTS}


def message(response: httpx.Response) -> str:
    """Return an error's message, in whichever form it is."""
    body = response.json()
    error = body.get("error")
    if isinstance(error, dict):
        assert error["code"] == response.status_code
        return str(error["message"])
    return str(body.get("message") or body.get("detail") or error)


CASES: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v2/rerank", {**GOOD, "documents": []}, 400, "no documents"),
    ("/v1/rerank", {**GOOD, "documents": []}, 400, "no documents"),
    ("/rerank", {**GOOD, "documents": []}, 400, "no documents"),
    ("/rerank", {"query": QUERY, "texts": []}, 400, "no documents"),
    ("/v2/rerank", {**GOOD, "documents": ["a", 5]}, 422, r"documents\[1\] is 5"),
    ("/v2/rerank", {**GOOD, "documents": [None]}, 422, r"documents\[0\] is None"),
    ("/v2/rerank", {**GOOD, "documents": "text"}, 422, "documents is 'text'"),
    ("/v2/rerank", {"documents": ["a"]}, 422, "query is missing"),
    ("/v2/rerank", {**GOOD, "query": "  "}, 422, "query is blank"),
    ("/v2/rerank", {**GOOD, "query": ["a"]}, 422, "query is"),
    ("/v2/rerank", {**GOOD, "top_n": 0}, 422, "top_n is 0: .*1"),
    ("/v2/rerank", {**GOOD, "top_n": -3}, 422, "top_n is -3"),
    ("/v2/rerank", {**GOOD, "top_n": True}, 422, "top_n is True"),
    ("/v2/rerank", {**GOOD, "top_n": 1.5}, 422, "top_n is 1.5"),
    ("/rerank", {**GOOD, "top_n": -1}, 422, "top_n is -1"),
    ("/v1/rerank", {**GOOD, "top_k": 0}, 422, "top_k is 0"),
    ("/v2/rerank", {**GOOD, "model": "gpt-9"}, 404, "model is 'gpt-9', served are .*'rerank'"),
    ("/v2/rerank", {**GOOD, "relevant_spans": {"mode": "on"}}, 422, r"relevant_spans.mode is 'on'"),
    ("/v1/rerank", {**GOOD, "documents": [{"url": "x"}]}, 422, r"documents\[0\]"),
    ("/v2/rerank", {**GOOD, "documents": ["a"] * 21}, 413, "21 documents, at most 20"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"] * 21}, 413, "21 documents, at most 20"),
    ("/v1/prune", {"query": QUERY, "chunks": [{"title": "x"}]}, 422, "chunk 0"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "top_k": 0}, 422, "top_k is 0"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "topk": 1}, 422, "topk"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "protect": "(a+)+$"}, 422, "protect is .*list"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "protect": [" "]}, 422, "protect has ' '"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "protect": ["a"] * 101}, 422, "at most 100"),
    ("/v1/prune", {"query": QUERY, "chunks": ["a"], "history": [{"content": 5}]}, 422, r"y\[0\]"),
    (
        "/v1/prune",
        {"query": QUERY, "chunks": [{"text": "a", "retrieval_score": 5.0}], "prior": "cosine"},
        422,
        "prior='cosine'",
    ),
    ("/v1/prune", {"requests": [5]}, 422, r"requests\[0\] is 5"),
    ("/v1/prune", {"requests": [{"query": "?", "chunks": ["a"], "k": 1}]}, 422, "its key 'k'"),
    ("/v1/prune", {"requests": [{"query": "?", "chunks": [5] * 9}] * 3}, 413, "27 documents"),
    ("/v1/rerank", {**GOOD, "documents": [5] * 21}, 413, "21 documents"),
    ("/rerank", {"query": QUERY, "texts": [5] * 21}, 413, "21 documents"),
    ("/v1/attribute", {"query": QUERY, "chunks": [5] * 21, "answer": "a"}, 413, "21 documents"),
    ("/v1/index", {"chunks": [5] * 21}, 413, "21 documents"),
    ("/v1/prune", {"requests": [{"query": " ", "chunks": ["a"]}]}, 422, "blank"),
    ("/v1/index", {"chunks": [5]}, 422, r"chunks\[0\] is 5"),
    ("/v1/nowhere", GOOD, 404, "no such path"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), CASES)
def test_refusals(
    server: ServerProcess, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    response = server.post(path, body)
    assert response.status_code == status, response.text
    assert re.search(said, message(response)), response.text


def test_each_shape_has_its_error_form(server: ServerProcess) -> None:
    bodies = {
        "/v2/rerank": {**GOOD, "top_n": 0},
        "/v1/rerank": {**GOOD, "top_n": 0},
        "/rerank": {**GOOD, "top_n": -1},
        "/v1/prune": {"query": " ", "chunks": ["a"]},
    }
    keys = {path: server.post(path, body).json().keys() for path, body in bodies.items()}
    assert keys == {
        "/v2/rerank": {"message"},
        "/v1/rerank": {"message", "detail"},
        "/rerank": {"error"},
        "/v1/prune": {"error", "message"},
    }
    tei = server.post("/rerank", {"query": " ", "texts": ["a"]}).json()
    assert tei.keys() == {"error", "error_type"} and tei["error_type"] == "Tokenizer"
    tei = server.post("/rerank", {"query": "?", "texts": ["a"] * 21}).json()
    assert tei["error_type"] == "Validation", "of a 413, as in TEI"
    tei = server.post("/rerank", {"query": "?", "texts": []}).json()
    assert tei["error_type"] == "Empty"
    voyage = server.post("/v1/rerank", {**GOOD, "truncation": "no"}).json()
    assert voyage.keys() == {"detail"}


def test_a_top_n_above_the_documents_is_all_of_them(server: ServerProcess) -> None:
    answer = server.post("/v2/rerank", {**GOOD, "top_n": 10**30}).json()
    assert len(answer["results"]) == len(DOCUMENTS)


JSON = {"Content-Type": "application/json"}
BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", JSON, 400, "isn't JSON"),
    (b'{"query": "a", "docu', JSON, 400, "isn't JSON"),
    (b"[1, 2]", JSON, 400, "send one JSON object"),
    (b'{"query": NaN}', JSON, 400, "NaN"),
    (b'{"query": "a", "documents": [{"text": "a", "n": 1e999}]}', JSON, 400, "1e999 is beyond"),
    (b'{"top_n": -1' + b"0" * 400 + b".5}", JSON, 400, "-1000.* is beyond"),
    (b"[" * 50_000, JSON, 400, "nested too deep|isn't JSON"),
    (b'{"top_n": ' + b"9" * 20_000 + b"}", JSON, 400, "isn't JSON"),
    (json.dumps(GOOD).encode("utf-16"), JSON, 400, "isn't UTF-8"),
    ('{"query": "é"}'.encode("latin-1"), JSON, 400, "isn't UTF-8"),
    (b"query=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
    (gzip.compress(b"{}", mtime=0), {**JSON, "Content-Encoding": "gzip"}, 415, "not compressed"),
    (b" " * 100_001, JSON, 413, "at most 100,000"),
]


@pytest.mark.parametrize(("body", "headers", "status", "said"), BODIES)
def test_bodies_that_cannot_be_read(
    server: ServerProcess, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    response = httpx.post(f"{server.url}/v2/rerank", content=body, headers=headers, timeout=60)
    assert response.status_code == status, response.text
    assert re.search(said, message(response))


@pytest.mark.parametrize("depth", [200, 900, 930, 940, 943, 944, 945, 946, 950, 1000])
def test_what_is_nested_deep_is_sent_back_or_refused(server: ServerProcess, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    body = b'{"query": "who?", "documents": [{"text": "a", "deep": ' + nested + b"}]}"
    response = httpx.post(f"{server.url}/v1/rerank", content=body, headers=JSON, timeout=60)
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code == 200:
        assert nested in response.content
    else:
        assert "nested too deep" in message(response)


def test_a_hundred_thousand_documents(server: ServerProcess) -> None:
    body = json.dumps({"query": QUERY, "documents": ["a"] * 100_000})
    response = httpx.post(f"{server.url}/v2/rerank", content=body, headers=JSON, timeout=60)
    assert response.status_code == 413


def test_a_body_without_an_end_is_given_up(server: ServerProcess) -> None:
    def endless() -> Any:
        for _ in range(50):
            yield b" " * 10_000

    response = httpx.post(f"{server.url}/v2/rerank", content=endless(), headers=JSON, timeout=60)
    assert response.status_code == 413


def raw(server: ServerProcess, *parts: bytes, wait: float = 0.0) -> bytes:
    """Send bytes, and return all that comes until the server closes the connection."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        received = b""
        while data := connection.recv(65_536):
            received += data
    return received


def test_lone_surrogates_survive(server: ServerProcess) -> None:
    body = b'{"query": "who \\ud800?", "documents": ["a \\udfff b"], "return_documents": true}'
    response = httpx.post(f"{server.url}/v1/rerank", content=body, headers=JSON, timeout=60)
    assert response.status_code == 200
    assert json.loads(response.text)["results"][0]["document"] == {"text": "a \udfff b"}


def test_games_with_headers_and_paths(server: ServerProcess) -> None:
    assert raw(server, b"\x00\x01garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    smuggled = b"X-Request-Id: a\r\nX-Request-Id: b c\r\nConnection: close\r\n\r\n"
    answer = raw(server, b"GET /live HTTP/1.1\r\nHost: h\r\n", smuggled)
    assert answer.startswith(b"HTTP/1.1 200")
    for bad in ("a\tb", "x" * 65, "a;b", "é"):
        headers = {b"X-Request-Id": bad.encode("utf-8")}
        answered = httpx.get(f"{server.url}/live", headers=headers)
        assert re.fullmatch(r"[0-9a-f]{32}", answered.headers["x-request-id"])
    mine = httpx.get(f"{server.url}/live", headers={"X-Request-Id": "trace-1.a:b"})
    assert mine.headers["x-request-id"] == "trace-1.a:b"
    for path in ("/../../etc/passwd", "/%2e%2e/x", "//live", "/live%0d%0aSet-Cookie:%20a=b"):
        answered = httpx.get(server.url + path)
        assert answered.status_code == 404 and "set-cookie" not in answered.headers
    assert httpx.get(f"{server.url}/v2/rerank").status_code == 405
    assert httpx.put(f"{server.url}/live").status_code == 405


def test_the_log_is_json_without_texts(server: ServerProcess) -> None:
    secret = "a very secret sentence about the vault"
    marker = {"X-Request-Id": "looked-for"}
    server.post("/v2/rerank", {"query": secret, "documents": [secret]}, headers=marker)
    server.post("/v2/rerank", {"query": secret, "documents": [secret, 5]})
    server.post("/v1/prune", {"query": secret, "chunks": [secret], "top_k": secret})
    httpx.get(f"{server.url}/{secret}?q={secret}")
    wait_for_log(server, "looked-for")
    assert "not JSON" not in {record["logger"] for record in server.log}
    assert secret not in json.dumps(server.log)
    [record] = [one for one in server.log if one.get("request_id") == "looked-for"]
    assert record["status"] == 200 and record["path"] == "/v2/rerank"
    assert record["documents"] == 1 and record["tokens"] > 0 and record["shape"] == "cohere-v2"


def wait_for_log(server: ServerProcess, identity: str) -> None:
    deadline = time.monotonic() + 30
    while not any(record.get("request_id") == identity for record in server.log):
        assert time.monotonic() < deadline
        time.sleep(0.05)
