"""A chat-completions server in a thread that misbehaves by plan."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Served:
    """A running server."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)  # each with path and key

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def served(
    plan: Mapping[str, Sequence[str]] | None = None,
    *,
    reply: Callable[[str], str] = lambda prompt: f" Answer to: {prompt.splitlines()[-1]} ",
    refused: Sequence[str] = (),
) -> Iterator[Served]:
    """Run the server.

    Args:
        plan: A word -> what the first, second, ... request with it in the prompt meets: "ok" (from
            then on, too), a status, "hang", "drop", "garbage", "other", "empty" or "no usage".
        reply: What a prompt is answered with.
        refused: Parameters that the model doesn't take, the first of which an error names.
    """
    log, lock, seen = Served(), threading.Lock(), Counter[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            word = next((word for word in plan or {} if word in prompt), "")
            with lock:
                seen[word] += 1
                number = seen[word]
                log.requests.append(
                    {"path": self.path, "key": self.headers.get("Authorization"), **body}
                )
            if unsupported := [name for name in refused if name in body]:
                error = {"message": "unsupported parameter", "param": unsupported[0]}
                self._send(400, json.dumps({"error": error}).encode())
                return
            steps = (plan or {}).get(word, ())
            self._meet(steps[number - 1] if number <= len(steps) else "ok", prompt)

        def _meet(self, step: str, prompt: str) -> None:
            text = "" if step == "empty" else reply(prompt)
            completion: dict[str, Any] = {"choices": [{"message": {"content": text}}]}
            if step != "no usage":
                completion["usage"] = {"prompt_tokens": 11, "completion_tokens": 7}
            bodies = {"garbage": b'{"choices": [', "other": b'{"error": "later"}'}
            if step == "drop":
                self.connection.close()
            elif step.isdigit():
                self._send(int(step), b'{"error": {"message": "not now"}}')
            else:
                time.sleep(1.5 if step == "hang" else 0)
                self._send(200, bodies.get(step, json.dumps(completion).encode()))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    log.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield log
    finally:
        server.shutdown()
        server.server_close()
