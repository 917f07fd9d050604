"""Sends the few requests of Kafka's protocol that a probe makes, over a connected socket.

Versions are the lowest ones without tagged fields, which every broker since 2017 and Kafka 4 still take.
"""

from __future__ import annotations

import socket
import struct

_METADATA, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 3, 17, 18, 36
_MAX_ANSWER_BYTES = 1024 * 1024


class NotKafkaError(Exception):
    """The other side answers, but not in Kafka's protocol."""


def api_versions(sock: socket.socket) -> None:
    """Return if the other side answers as a Kafka broker does."""
    _call(sock, _API_VERSIONS, 0, b"")


def sasl_handshake(sock: socket.socket, mechanism: str) -> tuple[int, list[str]]:
    """Ask to log in. Return the error code and the mechanisms that are offered."""
    answer = _call(sock, _SASL_HANDSHAKE, 1, struct.pack(">h", len(mechanism)) + mechanism.encode())
    code, count = struct.unpack_from(">hi", answer)
    offered, rest = [], answer[6:]
    for _ in range(count):
        name, rest = _string(rest)
        offered.append(name)
    return code, offered


def sasl_authenticate(sock: socket.socket, token: bytes) -> tuple[int, str, bytes]:
    """Make one exchange of a login. Return the error code, the broker's message and its token."""
    answer = _call(sock, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
    (code,) = struct.unpack_from(">h", answer)
    message, rest = _string(answer[2:])
    return code, message, rest[4:]


def advertised_brokers(sock: socket.socket) -> list[tuple[str, int]]:
    """Return the (host, port) that each broker of the cluster advertises to clients."""
    answer = _call(sock, _METADATA, 1, struct.pack(">i", 0))
    (count,) = struct.unpack_from(">i", answer)
    brokers, rest = [], answer[4:]
    for _ in range(count):
        host, rest = _string(rest[4:])
        (port,) = struct.unpack_from(">i", rest)
        _, rest = _string(rest[4:])
        brokers.append((host, port))
    return brokers


def _call(sock: socket.socket, api_key: int, version: int, body: bytes) -> bytes:
    """Send a request in Kafka's framing. Return the answer without its correlation id."""
    request = struct.pack(">hhih3s", api_key, version, 1, 3, b"rft") + body
    sock.sendall(struct.pack(">i", len(request)) + request)
    head = _receive(sock, 4)
    if head[0] == 0x15 and head[1] == 0x03:
        raise NotKafkaError("it answers with a TLS alert")
    (size,) = struct.unpack(">i", head)
    if not 4 <= size <= _MAX_ANSWER_BYTES:
        raise NotKafkaError(f"it answers with {head!r}")
    return _receive(sock, size)[4:]


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("closed by the broker")
        data += part
    return data


def _string(data: bytes) -> tuple[str, bytes]:
    """Read a nullable string (2-byte length). Return it and what follows it."""
    (size,) = struct.unpack_from(">h", data)
    end = 2 + max(size, 0)
    return data[2:end].decode("utf-8", "replace"), data[end:]
