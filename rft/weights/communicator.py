"""Process groups of our own: built over a rendezvous, never the default group, so that one may die and the next live.

One code path for ``gloo`` (CPUs), ``nccl`` (GPUs) and ``ipc`` (memory that one host's processes share).
"""

from __future__ import annotations

import contextlib
import threading
import time
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
"""Buckets on their way at once: one is received while the one before it is summed up."""


@dataclass
class Communicator:
    """A communicator of the sender (rank 0) and its receivers (ranks 1 …)."""

    name: str
    """Unique; both sides keep a group by its name for as long as the same members go on."""
    group: Any
    store: Any
    """CommunicatorCache alive with the group."""

    def abort(self) -> None:
        """Break every operation under way, from any thread. The group is of no use afterwards."""
        with contextlib.suppress(RuntimeError):
            self.group.abort()


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
    """Build the group ``name`` of ``size`` ranks; returns when all have come. ``bind``: own address, for gloo.

    Raises WeightsError when they have not within ``timeout_s``.
    """
    inner = dist.PrefixStore(f"group/{name}", store)
    timeout = timedelta(seconds=max(timeout_s, 0.01))
    try:
        if backend == "gloo":
            gloo: Any = dist.ProcessGroupGloo  # torch's stubs know nothing of its options
            options = gloo._Options()
            options._timeout = timeout
            options._threads = IN_FLIGHT
            options._devices = [gloo.create_device(hostname=bind)]
            return Communicator(name, gloo(inner, rank, size, options), store)
        if backend == "ipc":
            shared = SharedMemoryGroup(inner, rank, size, bucket_bytes=bucket_bytes, timeout=timeout)
            return Communicator(name, shared, store)
        return Communicator(name, _nccl(inner, rank, size, timeout), store)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the {backend} group of {size} could not be built: {one_line(error)}") from error


def _nccl(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise WeightsError("weights.backend = 'nccl' needs a GPU and a torch that was built with NCCL; use 'gloo'")
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, rank, size, options)


def broadcast(
    group: Communicator,
    buckets: Iterable[Tensor],
    *,
    remaining_s: Callable[[], float],
    stall_s: float,
    arrived: Callable[[int, Tensor], None] = lambda *_: None,
) -> None:
    """Broadcast uint8 buckets from rank 0, ``IN_FLIGHT`` at once; ``arrived(index, bucket)`` after each.

    Raises WeightsError when a bucket makes no progress for ``stall_s``, or nothing remains of the time.
    """
    under_way: deque[tuple[int, Tensor, Any]] = deque()

    def settle() -> None:
        index, bucket, work = under_way.popleft()
        work.wait(timedelta(seconds=max(min(stall_s, remaining_s()), 0.01)))
        arrived(index, bucket)

    try:
        for index, bucket in enumerate(buckets):
            limit = min(stall_s, remaining_s())
            if limit <= 0:
                raise WeightsError("the deadline of the transfer has passed")
            options = dist.BroadcastOptions()
            options.rootRank = 0
            options.rootTensor = 0
            options.timeout = timedelta(seconds=limit)
            under_way.append((index, bucket, group.group.broadcast([bucket], options)))
            if len(under_way) >= IN_FLIGHT:
                settle()
        while under_way:
            settle()
    except RuntimeError as error:
        raise WeightsError(f"the transfer broke off: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The part of a library's message that people can read."""
    text = str(error).strip().split("\n", 1)[0].split(". This is typically", 1)[0]
    return text or type(error).__name__


class Deadline:
    """One budget of time that the parts of a transfer share."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(self._at - time.monotonic(), 0.0)


class CommunicatorCache:
    """The communicator that is kept between transfers, and whose turn it is to use it.

    A transfer that was abandoned may still be stuck in a library's call; its turn is over, so nothing that it does
    when it wakes touches the communicator of a later one.
    """

    def __init__(self) -> None:
        self.group: Communicator | None = None
        self._turn: object | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The group's; empty when there is none."""
        group = self.group
        return group.name if group else ""

    def begin(self) -> object:
        """A new turn."""
        with self._lock:
            self._turn = object()
            return self._turn

    def is_on(self, turn: object) -> bool:
        return self._turn is turn

    def keep(self, turn: object, group: Communicator) -> None:
        """``group`` is there. Raises WeightsError when the turn is over."""
        with self._lock:
            if self._turn is turn:
                self.group = group
                return
        group.abort()
        raise WeightsError("the transfer was abandoned")

    def drop(self, turn: object) -> None:
        """The group is broken, or not the right one."""
        with self._lock:
            if self._turn is not turn:
                return
            group, self.group = self.group, None
        if group is not None:
            group.abort()

    def abort(self) -> None:
        """End the turn, whatever it is doing, and leave the group."""
        with self._lock:
            self._turn = None
            group, self.group = self.group, None
        if group is not None:
            group.abort()
