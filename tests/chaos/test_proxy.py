"""The proxy forwards, cuts, delays and drops data as its methods promise."""

from __future__ import annotations

import socket
import socketserver
import threading
import time

import pytest

from chaos.proxy import Proxy
from infra.processes import HOST


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def proxy():
    server = socketserver.ThreadingTCPServer((HOST, 0), _Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(server.server_address[1])
    proxy.start()
    yield proxy
    proxy.stop()
    server.shutdown()
    server.server_close()


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection((HOST, proxy.port), timeout=5)
    client.settimeout(5)
    return client


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    got = b""
    while len(got) < len(data) and (more := client.recv(65536)):
        got += more
    return got


def is_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_everything_passes_unchanged(proxy):
    data = bytes(range(256)) * 4000
    with connect(proxy) as client:
        assert echoed(client, data[:65536]) == data[:65536]
        assert echoed(client, b"again") == b"again"
        assert proxy.connections == 1


def test_a_cut_ends_all_connections_and_accepts_none_until_restored(proxy):
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"
        assert proxy.cut() == 1
        assert is_ended(client)
    with connect(proxy) as refused:
        assert is_ended(refused)
    proxy.restore()
    with connect(proxy) as client:
        assert echoed(client, b"x") == b"x"


def test_dropped_data_never_arrives_and_its_connection_is_ended(proxy):
    with connect(proxy) as client:
        assert echoed(client, b"before") == b"before"
        assert proxy.drop(1.0, 0) == 1
        client.sendall(b"dropped")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.restore()
        client.settimeout(5)
        assert is_ended(client)


def test_delayed_data_arrives_later_and_complete(proxy):
    with connect(proxy) as client:
        proxy.delay(0.4, 1)
        began = time.monotonic()
        for n in range(5):
            assert echoed(client, bytes([n]) * 1000) == bytes([n]) * 1000
        slow = time.monotonic() - began
        proxy.restore()
        began = time.monotonic()
        for n in range(5):
            assert echoed(client, bytes([n]) * 1000) == bytes([n]) * 1000
        assert slow > 0.4 > time.monotonic() - began
