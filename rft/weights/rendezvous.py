"""Serves and uses the rendezvous of transfers: a TCPStore of the trainer's, with a few keys for each transfer.

``<transfer>/here/<receiver>``   a receiver has joined; the value names the communicator that it still has, if any
``<transfer>/go``                the sender has begun: communicator, and receivers by rank. Others are left out
``<transfer>/done/<receiver>``   the receiver's result: empty for success, else the cause of its failure
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from rft.errors import WeightsError
from rft.weights.communicator import one_line

POLL_S = 0.002
CONNECT_S = 5.0
"""When the other side dies meanwhile, TCPStore tries for up to three times as long and cannot be interrupted."""
_PROBE_EVERY_S = 0.2
"""Pause between checks, while connecting, that the other side still listens."""
_ANSWER_S = 30.0
"""Time that a reachable store may take for one answer."""


@dataclass(frozen=True, slots=True)
class TransferStart:
    """Begins a transfer: the sender names its communicator and its receivers."""

    communicator: str
    receivers: tuple[str, ...]
    """In order of their ranks 1, 2, …"""


class Rendezvous:
    """Serves the store from this process."""

    def __init__(self, bind: str, port: int) -> None:
        """Listen on ``bind`` only, on ``port`` (0 for any free one). Raises WeightsError when that is not possible."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            raise WeightsError(f"cannot listen on weights.bind = '{bind}', port {port}: {error}") from error
        self._bind, self.port = bind, int(listener.getsockname()[1])
        # By itself the store would listen on every interface, so it gets our socket, and owns its descriptor from here.
        self.store = dist.TCPStore(
            bind,
            self.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=_ANSWER_S),
            master_listen_fd=listener.detach(),
        )
        self.nonce = secrets.token_hex(8)
        """Keeps events of an earlier trainer at the same address from leading here."""

    @property
    def address(self) -> str:
        """``host:port/nonce``"""
        return f"{self._bind}:{self.port}/{self.nonce}"


def transfer_prefix(address: str, epoch: int) -> tuple[str, int, str]:
    """Return (host, port, prefix of the keys) of a transfer. Raises WeightsError for a malformed address."""
    endpoint, _, nonce = address.rpartition("/")
    host, _, port = endpoint.rpartition(":")
    if not (host and port.isdigit() and nonce):
        raise WeightsError(f"'{address}' is not a rendezvous address (host:port/nonce)")
    return host, int(port), f"{nonce}/{epoch}"


def reach(host: str, port: int, timeout_s: float) -> dist.TCPStore:
    """Connect to a trainer's store. Raises WeightsError, at once when nothing listens there."""
    limit = max(min(timeout_s, CONNECT_S), 0.01)
    connecting: Future[dist.TCPStore] = Future()

    def connect() -> None:
        try:
            connecting.set_result(
                dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=limit))
            )
        # Whatever it is, the waiting thread raises it.
        except Exception as error:
            connecting.set_exception(error)

    try:
        # TCPStore would keep trying for all of its time even when it is refused.
        socket.create_connection((host, port), limit).close()
        # Not a daemon: one that is in torch's code when the process ends would abort the process.
        threading.Thread(target=connect, name="rendezvous").start()
        while not wait([connecting], _PROBE_EVERY_S).done:
            socket.create_connection((host, port), limit).close()
        return connecting.result()
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"the trainer's rendezvous {host}:{port} cannot be reached: {one_line(error)}") from error


class TransferKeys:
    """Reads and writes the keys of one transfer, for either side."""

    def __init__(self, store: dist.Store, prefix: str) -> None:
        self._store = dist.PrefixStore(prefix, store)

    def wait_for_receivers(
        self, receivers: Iterable[str], limit_s: float, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        """For the sender: return the receivers that join within ``limit_s``, with the communicator each still has."""
        return self._collect("here", receivers, limit_s, stopped)

    def wait_for_results(self, receivers: Iterable[str], limit_s: float, stopped: Callable[[], bool]) -> dict[str, str]:
        """For the sender: return the results that receivers report within ``limit_s``; empty for success."""
        return self._collect("done", receivers, limit_s, stopped)

    def start(self, start: TransferStart) -> None:
        """For the sender: begin the transfer."""
        self._set("go", json.dumps([start.communicator, *start.receivers]))

    def join(self, receiver: str, communicator: str, limit_s: float) -> TransferStart:
        """For a receiver: join, and wait until the sender begins. ``communicator`` names the one it still has.

        Raises WeightsError when the sender does not begin within ``limit_s``.
        """
        self._set(f"here/{receiver}", communicator)
        try:
            self._store.wait(["go"], timedelta(seconds=max(limit_s, 0.01)))
            name, *receivers = json.loads(self._store.get("go"))
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"the trainer did not begin the transfer: {one_line(error)}") from error
        return TransferStart(name, tuple(receivers))

    def report(self, receiver: str, cause: str = "") -> None:
        """For a receiver: report its result, with the ``cause`` of a failure. Raises WeightsError."""
        self._set(f"done/{receiver}", cause)

    def delete_keys(self, receivers: Iterable[str]) -> None:
        """For the sender: delete the receivers' keys of a transfer that is over.

        The start stays, so that a receiver that comes late finds out.
        """
        for receiver in receivers:
            for kind in ("here", "done"):
                self._store.delete_key(f"{kind}/{receiver}")

    def _collect(
        self, kind: str, receivers: Iterable[str], limit_s: float, stopped: Callable[[], bool]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        missing = list(receivers)
        began = time.monotonic()
        until = began + limit_s
        while True:
            for receiver in list(missing):
                if self._store.check([f"{kind}/{receiver}"]):
                    found[receiver] = self._store.get(f"{kind}/{receiver}").decode().removeprefix("=")
                    missing.remove(receiver)
            now = time.monotonic()
            if not missing or stopped() or now >= until:
                return found
            # The store's own wait would log an error each time that it times out.
            time.sleep(min((now - began) / 10, POLL_S))

    def _set(self, key: str, value: str) -> None:
        try:
            self._store.set(key, f"={value}" if key != "go" else value)
        except RuntimeError as error:
            raise WeightsError(f"the trainer's rendezvous is gone: {one_line(error)}") from error
