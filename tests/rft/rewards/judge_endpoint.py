"""A chat endpoint on this machine that answers as a test says, faults included."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | int | Callable[[dict[str, Any]], str]
"""The judge's text, or a function of the request's body that gives it; an HTTP status; ``slow``, ``garbage`` or
``broken``."""


class Endpoint(ThreadingHTTPServer):
    """Gives its answers in turn; the last one for ever."""

    daemon_threads = True

    def __init__(self, answers: list[Answer], slow_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.slow_s = slow_s
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers["authorization"])
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if answer == "slow":
            time.sleep(server.slow_s)
        if isinstance(answer, int):
            self._send(answer, b'{"error": "no"}', {"Retry-After": "1"} if answer == 429 else {})
        elif answer == "garbage":
            self._send(200, b"<html>\xff\x00 gateway</html>")
        elif answer == "broken":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.wfile.flush()
            self.connection.close()
        else:
            text = answer(body) if callable(answer) else answer
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            self._send(200, json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode())

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def endpoint(*answers: Answer, slow_s: float = 3.0) -> Iterator[Endpoint]:
    server = Endpoint(list(answers), slow_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
