"""Broadcasts buckets through memory that the trainer and the explorers of one host share.

:class:`SharedMemoryGroup` replaces the process group of ``torch.distributed`` that ``gloo`` and ``nccl`` use. It serves
processes that share a GPU, of which NCCL allows only one, and saves gloo's copies through the kernel.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rft.errors import WeightsError

SLOTS = 2
"""Buckets that the memory holds: one is written while the one before it is read."""
POLL_S = 0.001
_PAGE_BYTES = 4096
_LEFT, _DONE = 0, 1
"""Columns of a rank's row in the header."""
_NAME = re.compile(r"[0-9a-f]{32}")


class SharedMemoryGroup:
    """Lets rank 0 write each bucket once and every other rank copy it out.

    The memory begins with two int64 for each rank: whether it has left, and how many buckets it has written or read.
    ``SLOTS`` buckets follow. The memory has a name only until all ranks have mapped it, so a process that is killed
    leaves nothing behind.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, *, bucket_bytes: int, timeout: timedelta) -> None:
        """Map the memory together with the other ranks, which it meets at ``store``.

        Raises WeightsError when the memory cannot be made or mapped, RuntimeError when not all ranks have joined within
        ``timeout``.
        """
        self._rank = rank
        self._bucket_bytes = bucket_bytes
        self._next_bucket = 0
        header_bytes = -(-16 * size // _PAGE_BYTES) * _PAGE_BYTES
        total = header_bytes + SLOTS * bucket_bytes
        memory = _serve(store, size, total, timeout) if rank == 0 else _join(store, rank, total, timeout)
        self._ranks = np.frombuffer(memory, dtype=np.int64, count=2 * size).reshape(size, 2)
        data = torch.frombuffer(memory, dtype=torch.uint8, offset=header_bytes)
        self._slots = [data[start : start + bucket_bytes] for start in range(0, SLOTS * bucket_bytes, bucket_bytes)]

    def broadcast(self, tensors: list[Tensor], options: dist.BroadcastOptions) -> Work:
        """Begin to broadcast the one bucket in ``tensors``, uint8 [at most bucket_bytes], on any device."""
        (bucket,) = tensors
        number, self._next_bucket = self._next_bucket, self._next_bucket + 1
        if self._rank == 0:
            self._wait_for_readers(number - SLOTS, options.timeout)
            self._slot(number, len(bucket)).copy_(bucket)
            self._ranks[0, _DONE] = number + 1
        return Work(self, number, bucket)

    def finish(self, number: int, bucket: Tensor, timeout: timedelta) -> None:
        """Wait until all ranks have read bucket ``number`` (on rank 0), or read it.

        Raises RuntimeError when nothing progresses for ``timeout`` or a rank has left.
        """
        if self._rank == 0:
            self._wait_for_readers(number, timeout)
            return
        self._wait(lambda: bool(self._ranks[0, _DONE] > number), lambda: bool(self._ranks[0, _LEFT]), timeout)
        bucket.copy_(self._slot(number, len(bucket)))
        self._ranks[self._rank, _DONE] = number + 1

    def abort(self) -> None:
        """Leave, from any thread. Ranks that wait for this one break off at once."""
        self._ranks[self._rank, _LEFT] = 1

    def _slot(self, number: int, size: int) -> Tensor:
        if size > self._bucket_bytes:
            raise RuntimeError(f"a bucket of {size} bytes is larger than the shared memory's {self._bucket_bytes}")
        return self._slots[number % SLOTS][:size]

    def _wait_for_readers(self, number: int, timeout: timedelta) -> None:
        readers = self._ranks[1:]
        self._wait(
            lambda: bool((readers[:, _DONE] > number).all()),
            lambda: bool(readers[readers[:, _DONE] <= number, _LEFT].any()),
            timeout,
        )

    def _wait(self, done: Callable[[], bool], lost: Callable[[], bool], timeout: timedelta) -> None:
        began = time.monotonic()
        while not done():
            waited = time.monotonic() - began
            if self._ranks[self._rank, _LEFT]:
                raise RuntimeError("it was aborted")
            if lost() and not done():
                raise RuntimeError("another member has left it")
            if waited > timeout.total_seconds():
                raise RuntimeError(f"no progress for {waited:.1f} s")
            time.sleep(min(waited / 10, POLL_S))


class Work:
    """Represents a bucket in flight, as ``torch.distributed.Work`` does."""

    def __init__(self, group: SharedMemoryGroup, number: int, bucket: Tensor) -> None:
        self._group, self._number, self._bucket = group, number, bucket

    def wait(self, timeout: timedelta) -> None:
        """Return when the bucket has arrived. Raises RuntimeError when it does not within ``timeout``, or never can."""
        self._group.finish(self._number, self._bucket, timeout)


def directory() -> Path:
    """Return the folder in which shared memory has names: a file system in memory, if there is one."""
    memory = Path("/dev/shm")  # names are random, made with O_EXCL, for this user only
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def _path(name: str) -> Path:
    return directory() / f"rft-weights-{name}"


def _serve(store: dist.Store, size: int, total: int, timeout: timedelta) -> mmap.mmap:
    name = secrets.token_hex(16)
    path = _path(name)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WeightsError(f"cannot make shared memory in {directory()}: {error}") from error
    try:
        # Allocates now: writing later to pages that cannot be allocated would kill the process.
        os.posix_fallocate(handle, 0, total)
        memory = mmap.mmap(handle, total)
        store.set("memory", name)
        store.wait([f"mapped/{rank}" for rank in range(1, size)], timeout)
    except OSError as error:
        raise WeightsError(
            f"cannot make {total / 2**20:.0f} MiB of shared memory in {directory()}: {error}. Give it more space "
            "(docker run --shm-size) or set a smaller weights.bucket_mb: two buckets must fit"
        ) from error
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
    return memory


def _join(store: dist.Store, rank: int, total: int, timeout: timedelta) -> mmap.mmap:
    store.wait(["memory"], timeout)
    name = store.get("memory").decode()
    if not _NAME.fullmatch(name):
        raise WeightsError("the trainer's shared memory has an invalid name")
    try:
        handle = os.open(_path(name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise WeightsError(
            f"cannot open the trainer's shared memory: {error}. With weights.backend = 'ipc', run trainer and "
            f"explorers on one host and as one user, and let their containers share {directory()}"
        ) from error
    try:
        if os.fstat(handle).st_size != total:
            raise WeightsError("the trainer's shared memory does not have the size that was announced")
        memory = mmap.mmap(handle, total)
    finally:
        os.close(handle)
    store.set(f"mapped/{rank}", "")
    return memory
