"""Sends a weight version by collective: one broadcast of its bytes, in buckets, to the receivers that join.

:mod:`rft.weights.receiver` is the other side. docs/weights.md has the protocol.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rft.errors import WeightsError
from rft.retry import Deadline
from rft.weights.communicator import Communicator, CommunicatorCache, Lease, broadcast, connect
from rft.weights.manifest import Manifest
from rft.weights.rendezvous import Rendezvous, TransferKeys, TransferStart, transfer_prefix

RESULTS_S = 2.0
"""Time that receivers have, after a transfer that broke off, to report that they are alive."""


@dataclass(frozen=True, slots=True)
class TransferOutcome:
    """Says how a transfer ended for each receiver."""

    reached: frozenset[str]
    """Receivers that hold all of the version, verified."""
    failed: Mapping[str, str]
    """Receivers that are alive and do not hold it, with the cause."""
    unresponsive: frozenset[str]
    """Receivers that did not join, or did not answer after the transfer broke off."""
    error: str = ""
    """Why the transfer broke off, if it did."""
    join_s: float = 0.0
    """Seconds until the receivers had joined."""
    send_s: float = 0.0
    """Seconds from there until all had the last byte."""
    built: bool = False
    """True if a new communicator was built."""


class Sender:
    """Sends versions to receivers and keeps its communicator while the same receivers join."""

    def __init__(self, bind: str, port: int, backend: str) -> None:
        """Open the rendezvous on ``bind``. Raises WeightsError."""
        self._bind, self.backend = bind, backend
        self._rendezvous = Rendezvous(bind, port)
        self._cache = CommunicatorCache()
        self._receivers: tuple[str, ...] = ()
        """Of the communicator in the cache."""

    @property
    def address(self) -> str:
        """Address of the rendezvous, for the event: ``host:port/nonce``."""
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
    ) -> TransferOutcome:
        """Send ``weights``, a safetensors file, to those of ``receivers`` that join within ``stall_s``.

        Returns within ``deadline_s``. Never raises because of what receivers do.
        """
        deadline, lease = Deadline(deadline_s), self._cache.acquire()
        expected, began = sorted(receivers), time.monotonic()
        _, _, prefix = transfer_prefix(self.address, epoch)
        keys = TransferKeys(self._rendezvous.store, prefix)

        def aborted() -> bool:
            return not self._cache.is_current(lease)

        held = keys.wait_for_receivers(expected, min(stall_s, deadline.remaining()), aborted)
        joined = tuple(sorted(held))
        absent = frozenset(expected) - set(joined)
        begun = time.monotonic()
        communicator = self._cache.communicator
        reuse = communicator is not None and self._receivers == joined and set(held.values()) == {communicator.name}
        name = communicator.name if reuse and communicator else prefix
        keys.start(TransferStart(name, joined))
        if not joined:
            return TransferOutcome(frozenset(), {}, absent, join_s=begun - began)
        error = ""
        try:
            if not reuse or communicator is None:
                communicator = self._connect(lease, name, joined, manifest.bucket_bytes, deadline, stall_s)
            broadcast(
                communicator, _host_buckets(weights, manifest, device), remaining_s=deadline.remaining, stall_s=stall_s
            )
        except WeightsError as failure:
            error = str(failure)
            self._cache.discard(lease)
        results = keys.wait_for_results(joined, min(deadline.remaining(), RESULTS_S if error else stall_s), aborted)
        ended = time.monotonic()
        failed = {receiver: cause for receiver, cause in results.items() if cause}
        if len(results) < len(joined) or failed:
            self._cache.discard(lease)
        keys.delete_keys(expected)
        return TransferOutcome(
            reached=frozenset(results) - set(failed),
            failed=failed,
            unresponsive=absent | (set(joined) - set(results)),
            error=error,
            join_s=begun - began,
            send_s=ended - begun,
            built=not reuse,
        )

    def abort(self) -> None:
        """Break off ``send``, from any thread, and leave the communicator. ``send`` returns what it knows."""
        self._cache.abort()

    def _connect(
        self,
        lease: Lease,
        name: str,
        joined: tuple[str, ...],
        bucket_bytes: int,
        deadline: Deadline,
        stall_s: float,
    ) -> Communicator:
        self._cache.discard(lease)
        communicator = connect(
            name,
            self._rendezvous.store,
            backend=self.backend,
            rank=0,
            size=1 + len(joined),
            bind=self._bind,
            bucket_bytes=bucket_bytes,
            timeout_s=min(deadline.remaining(), stall_s),
        )
        self._cache.store(lease, communicator)
        self._receivers = joined
        return communicator


def _host_buckets(weights: bytes | memoryview, manifest: Manifest, device: torch.device | str) -> Iterator[Tensor]:
    with warnings.catch_warnings():
        # torch warns of read-only memory. Nothing writes to it: the root of a broadcast only reads.
        warnings.simplefilter("ignore", UserWarning)
        data = torch.frombuffer(weights, dtype=torch.uint8, offset=len(manifest.header))
    for start, end in manifest.buckets:
        yield data[start:end].to(device)
