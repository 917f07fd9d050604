"""Where a transfer's members meet: a TCPStore that the trainer keeps, and the few keys that each transfer has in it.

``<transfer>/here/<receiver>``   a receiver has come; the value is the name of the group that it still has, if any
``<transfer>/go``                the sender's word: group and receivers by rank. Who is not named is left behind
``<transfer>/done/<receiver>``   how it ended for a receiver: empty for well, else the cause
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

LOOK_EVERY_S = 0.002
CONNECT_S = 5.0
"""TCPStore tries for up to three times as long when the other side dies meanwhile, and cannot be broken off."""
_STILL_THERE_S = 0.2
"""How often to look, meanwhile, whether the other side still listens."""
_ANSWER_S = 30.0
"""How long a store that is there may take for one answer."""


@dataclass(frozen=True, slots=True)
class Go:
    """The sender's word."""

    group: str
    receivers: tuple[str, ...]
    """Ranks 1, 2, …"""


class Rendezvous:
    """The store, served from this process."""

    def __init__(self, bind: str, port: int) -> None:
        """Listen on ``bind`` only, on ``port`` (0: a free one). Raises WeightsError when that is not possible."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            raise WeightsError(f"cannot listen on weights.bind = '{bind}', port {port}: {error}") from error
        self._bind, self.port = bind, int(listener.getsockname()[1])
        # A socket of ours: left to itself the store would listen on every interface. It owns the descriptor from here.
        self.store = dist.TCPStore(
            bind,
            self.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=_ANSWER_S),
            master_listen_fd=listener.detach(),
        )
        self.nonce = secrets.token_hex(8)
        """So that an event of an earlier trainer at the same address leads nowhere."""

    @property
    def address(self) -> str:
        """``host:port/nonce``"""
        return f"{self._bind}:{self.port}/{self.nonce}"


def transfer_prefix(address: str, epoch: int) -> tuple[str, int, str]:
    """(host, port, prefix of the keys) of a transfer. Raises WeightsError for an address that is none."""
    place, _, nonce = address.rpartition("/")
    host, _, port = place.rpartition(":")
    if not (host and port.isdigit() and nonce):
        raise WeightsError(f"'{address}' is no rendezvous (host:port/nonce)")
    return host, int(port), f"{nonce}/{epoch}"


def reach(host: str, port: int, timeout_s: float) -> dist.TCPStore:
    """Connect to a trainer's store. Raises WeightsError at once when nobody listens there."""
    limit = max(min(timeout_s, CONNECT_S), 0.01)
    connecting: Future[dist.TCPStore] = Future()

    def connect() -> None:
        try:
            connecting.set_result(
                dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=limit))
            )
        # Whatever it is, who waits has to hear of it.
        except Exception as error:
            connecting.set_exception(error)

    try:
        # TCPStore tries for all of its time, also when it is refused.
        socket.create_connection((host, port), limit).close()
        # No daemon: in torch's code at the end of a process it would abort that.
        threading.Thread(target=connect, name="rendezvous").start()
        while not wait([connecting], _STILL_THERE_S).done:
            socket.create_connection((host, port), limit).close()
        return connecting.result()
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"the trainer's rendezvous {host}:{port} cannot be reached: {one_line(error)}") from error


class Meeting:
    """One transfer's keys, from either side."""

    def __init__(self, store: dist.Store, prefix: str) -> None:
        self._store = dist.PrefixStore(prefix, store)

    def gather(self, receivers: Iterable[str], limit_s: float, stopped: Callable[[], bool]) -> dict[str, str]:
        """Sender: the receivers that came within ``limit_s``, and the group that each still has."""
        return self._collect("here", receivers, limit_s, stopped)

    def results(self, receivers: Iterable[str], limit_s: float, stopped: Callable[[], bool]) -> dict[str, str]:
        """Sender: how it ended for the receivers that said so within ``limit_s``; empty for well."""
        return self._collect("done", receivers, limit_s, stopped)

    def go(self, word: Go) -> None:
        """Sender: begin with these receivers."""
        self._set("go", json.dumps([word.group, *word.receivers]))

    def arrive(self, receiver: str, group: str, limit_s: float) -> Go:
        """Receiver: be here and wait for the sender's word. Raises WeightsError when it does not come."""
        self._set(f"here/{receiver}", group)
        try:
            self._store.wait(["go"], timedelta(seconds=max(limit_s, 0.01)))
            name, *receivers = json.loads(self._store.get("go"))
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"the trainer did not begin the transfer: {one_line(error)}") from error
        return Go(name, tuple(receivers))

    def done(self, receiver: str, cause: str = "") -> None:
        """Receiver: how it ended."""
        self._set(f"done/{receiver}", cause)

    def forget(self, receivers: Iterable[str]) -> None:
        """Sender: delete the keys of a transfer that is over, but for the word, which latecomers are to find."""
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
            # Not the store's own wait, which complains in the log each time that it waits in vain.
            time.sleep(min((now - began) / 10, LOOK_EVERY_S))

    def _set(self, key: str, value: str) -> None:
        try:
            self._store.set(key, f"={value}" if key != "go" else value)
        except RuntimeError as error:
            raise WeightsError(f"the trainer's rendezvous is gone: {one_line(error)}") from error
