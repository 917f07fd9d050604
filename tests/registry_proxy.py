"""Puts TLS with client certificates and a bearer token before a schema registry, as a gateway does."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class RegistryProxy(http.server.ThreadingHTTPServer):
    """Passes on to ``target`` what carries the right token, over TLS to clients with a certificate of the CA."""

    def __init__(self, target: str, pki: Path, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.token = token
        self.refusal = 401
        self.requests = 0
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pki / "server.pem", pki / "server.key")
        tls.load_verify_locations(pki / "ca.pem")
        tls.verify_mode = ssl.CERT_REQUIRED
        # The handshake is done in the request's thread, or one client could hold up the others.
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> RegistryProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def shutdown_request(self, request: Any) -> None:
        """Read what the client still sends. If the socket were closed before, it might lose the alert that says why."""
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(2)
            while request.recv(4096):
                pass
        self.close_request(request)

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that were refused in the handshake."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RegistryProxy

    def _pass_on(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._answer(self.server.refusal, b'{"message": "no"}')
            return
        headers = {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}
        request = urllib.request.Request(self.server.target + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self._answer(error.code, error.read())

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...
