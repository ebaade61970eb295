"""A small chat-completions server that misbehaves as told: run as a process of its own.

    python endpoint_server.py LOG PLAN [SECONDS]

PLAN is a JSON object: a word of the prompt -> what its first, second, ... request meets, and "ok"
from then on. Every request is a line of LOG. It prints its port and serves until it is ended.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

log, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
seen: dict[str, int] = {}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with lock:
            number = seen[prompt] = seen.get(prompt, 0) + 1
            with log.open("a") as stream:
                key = self.headers.get("Authorization")
                record = {"path": self.path, "key": key, "time": time.time(), **body}
                stream.write(json.dumps(record) + "\n")
        time.sleep(seconds)
        steps: list[str] = next((own for word, own in plan.items() if word in prompt), [])
        self._meet(steps[number - 1] if number <= len(steps) else "ok", prompt)

    def _meet(self, step: str, prompt: str) -> None:
        if step == "hang":
            time.sleep(3)
        elif step == "drop":
            self.connection.close()
        elif step == "garbage":
            self._send(200, b'{"choices": [')
        elif step == "other":
            self._send(200, b'{"error": "later"}')
        elif step in ("ok", "empty", "untold"):
            text = "" if step == "empty" else f" Answer to: {prompt.splitlines()[-1]} "
            reply: dict[str, Any] = {"choices": [{"message": {"content": text}}]}
            if step != "untold":
                reply["usage"] = {"prompt_tokens": 11, "completion_tokens": 7}
            self._send(200, json.dumps(reply).encode())
        else:
            self._send(int(step), b"not\nnow")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0.6")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, client: None  # type: ignore[method-assign, assignment]
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
