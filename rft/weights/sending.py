"""The collective transport, sending: one broadcast of a version's bytes, in buckets, to the receivers that come.

:mod:`rft.weights.receiving` is the other side; docs/weights.md has the protocol.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rft.errors import WeightsError
from rft.weights.communicator import Communicator, CommunicatorCache, Deadline, broadcast, connect
from rft.weights.manifest import Manifest
from rft.weights.rendezvous import Go, Meeting, Rendezvous, transfer_prefix

RESULTS_S = 2.0
"""After a transfer that broke off: how long receivers have to say that they are alive."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transfer ended."""

    reached: frozenset[str]
    """Receivers that have all of it, verified."""
    failed: Mapping[str, str]
    """Receivers that are alive and do not, and why."""
    silent: frozenset[str]
    """Receivers that did not come, or said nothing after it broke off."""
    error: str = ""
    """Why it broke off, if it did."""
    join_s: float = 0.0
    """Until the receivers had come."""
    send_s: float = 0.0
    """From there until all had the last byte."""
    built: bool = False
    """Whether a new communicator was built."""


class Sender:
    """The trainer's side."""

    def __init__(self, bind: str, port: int, backend: str) -> None:
        """Open the rendezvous on ``bind``. Raises WeightsError."""
        self._bind, self.backend = bind, backend
        self._rendezvous = Rendezvous(bind, port)
        self._kept = CommunicatorCache()
        self._members: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Rendezvous, for the event: ``host:port/nonce``."""
        return self._rendezvous.address

    def send(
        self,
        weights: bytes | memoryview,
        manifest: Manifest,
        *,
        epoch: int,
        receivers: Iterable[str],
        deadline_s: float,
        stall_s: float,
        device: torch.device | str = "cpu",
    ) -> Outcome:
        """Send ``weights``, a safetensors file, to those of ``receivers`` who come within ``stall_s``.

        Returns within ``deadline_s``; never raises for what receivers do.
        """
        deadline, turn = Deadline(deadline_s), self._kept.begin()
        expected, began = sorted(receivers), time.monotonic()
        _, _, prefix = transfer_prefix(self.address, epoch)
        meeting = Meeting(self._rendezvous.store, prefix)

        def over() -> bool:
            return not self._kept.is_on(turn)

        came = meeting.gather(expected, min(stall_s, deadline.left()), over)
        joined = tuple(sorted(came))
        absent = frozenset(expected) - set(joined)
        begun = time.monotonic()
        group = self._kept.group
        reuse = group is not None and self._members == joined and set(came.values()) == {group.name}
        name = group.name if reuse and group else prefix
        meeting.go(Go(name, joined))
        if not joined:
            return Outcome(frozenset(), {}, absent, join_s=begun - began)
        error = ""
        try:
            if not reuse or group is None:
                group = self._build(turn, name, joined, manifest.bucket_bytes, deadline, stall_s)
            broadcast(group, _host_buckets(weights, manifest, device), remaining_s=deadline.left, stall_s=stall_s)
        except WeightsError as failure:
            error = str(failure)
            self._kept.drop(turn)
        results = meeting.results(joined, min(deadline.left(), RESULTS_S if error else stall_s), over)
        ended = time.monotonic()
        failed = {receiver: cause for receiver, cause in results.items() if cause}
        if len(results) < len(joined) or failed:
            self._kept.drop(turn)
        meeting.forget(expected)
        return Outcome(
            reached=frozenset(results) - set(failed),
            failed=failed,
            silent=absent | (set(joined) - set(results)),
            error=error,
            join_s=begun - began,
            send_s=ended - begun,
            built=not reuse,
        )

    def abort(self) -> None:
        """Break off what ``send`` does, from any thread; it returns what it knows. Leaves the group."""
        self._kept.abort()

    def _build(
        self,
        turn: object,
        name: str,
        joined: tuple[str, ...],
        bucket_bytes: int,
        deadline: Deadline,
        stall_s: float,
    ) -> Communicator:
        self._kept.drop(turn)
        group = connect(
            name,
            self._rendezvous.store,
            backend=self.backend,
            rank=0,
            size=1 + len(joined),
            bind=self._bind,
            bucket_bytes=bucket_bytes,
            timeout_s=min(deadline.left(), stall_s),
        )
        self._kept.keep(turn, group)
        self._members = joined
        return group


def _host_buckets(weights: bytes | memoryview, manifest: Manifest, device: torch.device | str) -> Iterator[Tensor]:
    with warnings.catch_warnings():
        # Read-only memory, and nothing writes to it: the root of a broadcast only reads.
        warnings.simplefilter("ignore", UserWarning)
        data = torch.frombuffer(weights, dtype=torch.uint8, offset=len(manifest.header))
    for start, end in manifest.buckets:
        yield data[start:end].to(device)
