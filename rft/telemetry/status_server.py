"""Serves small pages about this process over HTTP: its health now, its metrics later.

A page is a function that returns quickly. The server has threads of its own, so it also answers while the role's loop
hangs. It takes ``GET`` only, reads no body, and limits connections and the time of each.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_CONNECTIONS = 16
"""More than a probe, a scraper and a few people need. Further connections are closed at once."""
CONNECTION_S = 5.0
"""How long a client may be silent before its connection is closed."""


class Page(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
"""By path, such as ``/healthz``."""


class StatusServer:
    """Serves pages until it is closed."""

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        """Listen on host and port; port 0 takes a free one. Raises OSError if that is not possible."""
        self._server = _Server(address, pages)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, name="status-server", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the pages are: ``http://127.0.0.1:40123``."""
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        # A name that cannot be resolved here is an error of the bind below.
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages = pages
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for our name: that may take long, and nobody needs it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is no event of a run."""


class _Handler(BaseHTTPRequestHandler):
    timeout = CONNECTION_S
    server: _Server

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer with the page of the path."""
        pages = self.server.pages
        make = pages.get(urlsplit(self.path).path)
        if make is None:
            known = ", ".join(sorted(pages))
            self._answer(Page(404, "text/plain; charset=utf-8", f"there are: {known}\n".encode()))
        else:
            self._answer(make())

    def version_string(self) -> str:
        """Name no versions to strangers."""
        return "rft"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a probe asks every few seconds."""

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(page.body)
