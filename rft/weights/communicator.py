"""Builds communicators over a rendezvous, apart from torch's default process group, and broadcasts through them.

One may break without harm to the next. ``gloo`` (CPUs), ``nccl`` (GPUs) and ``ipc`` (memory that the processes of one
host share) go through the same code.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rft.errors import WeightsError
from rft.weights.shared_memory import SLOTS, SharedMemoryGroup

IN_FLIGHT = SLOTS
"""Buckets in flight at once: one is received while the checksum of the one before it is computed."""


@dataclass
class Communicator:
    """Connects the sender (rank 0) and its receivers (ranks 1 …)."""

    name: str
    """Unique. Both sides recognize a communicator by its name and reuse it while its members stay the same."""
    process_group: Any
    """A process group of torch's or a :class:`SharedMemoryGroup`. torch's stubs know nothing of what they share."""
    store: dist.Store
    """Referenced here because a process group needs it as long as it lives."""

    def abort(self) -> None:
        """Break off all operations, from any thread. The communicator cannot be used afterwards."""
        with contextlib.suppress(RuntimeError):
            self.process_group.abort()


def connect(
    name: str,
    store: dist.Store,
    *,
    backend: str,
    rank: int,
    size: int,
    bind: str,
    bucket_bytes: int,
    timeout_s: float,
) -> Communicator:
    """Build the communicator ``name`` of ``size`` ranks and return when all have joined.

    ``bind`` is this process's own address, for gloo. Raises WeightsError when not all have joined within ``timeout_s``.
    """
    inner = dist.PrefixStore(f"group/{name}", store)
    timeout = timedelta(seconds=max(timeout_s, 0.01))
    try:
        if backend == "gloo":
            return Communicator(name, _gloo(inner, rank, size, bind, timeout), store)
        if backend == "ipc":
            shared = SharedMemoryGroup(inner, rank, size, bucket_bytes=bucket_bytes, timeout=timeout)
            return Communicator(name, shared, store)
        return Communicator(name, _nccl(inner, rank, size, timeout), store)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the {backend} communicator of {size} ranks was not built: {one_line(error)}") from error


def _gloo(store: dist.Store, rank: int, size: int, bind: str, timeout: timedelta) -> Any:
    gloo: Any = dist.ProcessGroupGloo  # torch's stubs know nothing of its options
    options = gloo._Options()
    options._timeout = timeout
    options._threads = IN_FLIGHT
    options._devices = [gloo.create_device(hostname=bind)]
    return gloo(store, rank, size, options)


def _nccl(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise WeightsError("weights.backend = 'nccl' needs a GPU and a torch that was built with NCCL. Use 'gloo'")
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, size, options)


def broadcast(
    communicator: Communicator,
    buckets: Iterable[Tensor],
    *,
    remaining_s: Callable[[], float],
    stall_s: float,
    on_arrival: Callable[[int, Tensor], None] = lambda *_: None,
) -> None:
    """Broadcast ``buckets``, each uint8 [bytes], from rank 0, ``IN_FLIGHT`` at once.

    Calls ``on_arrival(index, bucket)`` after each. Raises WeightsError when a bucket makes no progress for ``stall_s``
    or when no time remains.
    """
    in_flight: deque[tuple[int, Tensor, Any]] = deque()

    def wait_for_oldest() -> None:
        index, bucket, work = in_flight.popleft()
        work.wait(timedelta(seconds=max(min(stall_s, remaining_s()), 0.01)))
        on_arrival(index, bucket)

    try:
        for index, bucket in enumerate(buckets):
            limit = min(stall_s, remaining_s())
            if limit <= 0:
                raise WeightsError("the deadline of the transfer has passed")
            options = dist.BroadcastOptions()
            options.rootRank = 0
            options.rootTensor = 0
            options.timeout = timedelta(seconds=limit)
            in_flight.append((index, bucket, communicator.process_group.broadcast([bucket], options)))
            if len(in_flight) >= IN_FLIGHT:
                wait_for_oldest()
        while in_flight:
            wait_for_oldest()
    except RuntimeError as error:
        raise WeightsError(f"the transfer broke off: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the part of a library's error message that helps people."""
    text = str(error).strip().split("\n", 1)[0].split(". This is typically", 1)[0]
    return text or type(error).__name__


class Lease:
    """Entitles one transfer to use a :class:`CommunicatorCache`, until the next transfer takes a lease."""


class CommunicatorCache:
    """Keeps the communicator between transfers and lets only the newest transfer use it.

    An aborted transfer may still be stuck in a library's call. Its lease has ended, so nothing that it does when it
    wakes up touches the communicator of a later transfer.
    """

    def __init__(self) -> None:
        self._communicator: Communicator | None = None
        self._lease: Lease | None = None
        self._lock = threading.Lock()

    @property
    def communicator(self) -> Communicator | None:
        """The communicator of the last transfer; None if there is none or it broke."""
        return self._communicator

    @property
    def name(self) -> str:
        """The communicator's name; empty if there is none."""
        communicator = self._communicator
        return communicator.name if communicator else ""

    def acquire(self) -> Lease:
        """Return a new lease. Every earlier one ends."""
        with self._lock:
            self._lease = Lease()
            return self._lease

    def is_current(self, lease: Lease) -> bool:
        """Return whether ``lease`` has not ended."""
        return self._lease is lease

    def store(self, lease: Lease, communicator: Communicator) -> None:
        """Keep ``communicator`` for this and later transfers.

        Aborts it and raises WeightsError when ``lease`` has ended.
        """
        with self._lock:
            if self._lease is lease:
                self._communicator = communicator
                return
        communicator.abort()
        raise WeightsError("the transfer was aborted")

    def discard(self, lease: Lease) -> None:
        """Abort the communicator because it is broken or has other members. Does nothing if ``lease`` has ended."""
        with self._lock:
            if self._lease is not lease:
                return
            communicator, self._communicator = self._communicator, None
        if communicator is not None:
            communicator.abort()

    def abort(self) -> None:
        """End the current lease, whatever its transfer is doing, and abort the communicator."""
        with self._lock:
            self._lease = None
            communicator, self._communicator = self._communicator, None
        if communicator is not None:
            communicator.abort()
