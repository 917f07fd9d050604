"""Receives weight versions by collective, in an explorer or in a worker of vLLM.

Does not touch ``torch.distributed``'s default group. Every wait is bounded, and ``abort`` breaks it off from another
thread. docs/weights.md has the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from rft.errors import WeightsError
from rft.model_files.safetensors_header import TensorSpec
from rft.retry import Deadline
from rft.weights.communicator import Communicator, CommunicatorCache, Lease, broadcast, connect
from rft.weights.manifest import Manifest, checksum
from rft.weights.rendezvous import TransferKeys, TransferStart, reach, transfer_prefix
from rft.weights.transfer_spec import TransferSpec, Verify


class Receiver:
    """Receives versions, one after the other, and keeps its communicator while the members stay the same."""

    def __init__(self) -> None:
        self._cache = CommunicatorCache()
        self._store: tuple[str, dist.TCPStore] | None = None
        """Address and client of the trainer's store. A restarted trainer has another."""

    def receive(
        self, transfer: TransferSpec, *, device: torch.device | str = "cpu", staged: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Join the transfer and yield its tensors by name, on ``device``, in the manifest's order.

        If ``staged``, the whole version is in memory and verified before the first tensor is yielded. Otherwise
        tensors are yielded as they arrive, each from verified buckets, in the memory of one tensor and one bucket. Such
        a tensor is valid until the next one is requested, and the version is complete only when the iterator ends
        without an error.

        Raises WeightsError when the transfer begins without this receiver, breaks off, passes its deadline, or brings
        other bytes than were announced.
        """
        deadline = Deadline(transfer.deadline_s)
        manifest = transfer.manifest
        host, port, prefix = transfer_prefix(transfer.rendezvous, transfer.epoch)
        lease = self._cache.acquire()
        if self._store is None or self._store[0] != transfer.rendezvous:
            self._store = None
            self._store = (transfer.rendezvous, reach(host, port, deadline.remaining()))
        store = self._store[1]
        keys = TransferKeys(store, prefix)
        try:
            start = keys.join(transfer.receiver, self._cache.name, deadline.remaining())
        except WeightsError:
            self._store = None
            raise
        if transfer.receiver not in start.receivers:
            raise WeightsError(f"the transfer of epoch {transfer.epoch} began without this member: it joined too late")
        try:
            communicator = self._connect(lease, start, store, transfer, deadline)
            incoming = _IncomingTransfer(manifest, transfer.verify, torch.device(device), staged=staged)
            for name, tensor in incoming.tensors(communicator, deadline, transfer.stall_s):
                if not self._cache.is_current(lease):
                    raise WeightsError("the transfer was aborted")
                yield name, tensor
        except BaseException as error:
            self._cache.discard(lease)
            _report_failure(keys, transfer.receiver, str(error) or type(error).__name__)
            raise
        keys.report(transfer.receiver)

    def abort(self) -> None:
        """Break off ``receive``, from any thread, and leave the communicator. ``receive`` raises WeightsError."""
        self._cache.abort()

    def _connect(
        self, lease: Lease, start: TransferStart, store: dist.Store, transfer: TransferSpec, deadline: Deadline
    ) -> Communicator:
        held = self._cache.communicator
        if held is not None and held.name == start.communicator:
            return held
        self._cache.discard(lease)
        communicator = connect(
            start.communicator,
            store,
            backend=transfer.backend,
            rank=1 + start.receivers.index(transfer.receiver),
            size=1 + len(start.receivers),
            bind=transfer.bind,
            bucket_bytes=transfer.bucket_bytes,
            timeout_s=min(deadline.remaining(), transfer.stall_s),
        )
        self._cache.store(lease, communicator)
        return communicator


class _IncomingTransfer:
    """Receives and verifies the bytes of one transfer."""

    def __init__(self, manifest: Manifest, verify: Verify, device: torch.device, *, staged: bool) -> None:
        self._manifest = manifest
        self._device = device
        self._staged = staged
        self._hash = hashlib.sha256(manifest.header) if verify == "sha256" else None
        self._mismatch = ""

    def tensors(self, communicator: Communicator, deadline: Deadline, stall_s: float) -> Iterator[tuple[str, Tensor]]:
        if self._staged:
            data = torch.empty(self._manifest.data_bytes, dtype=torch.uint8, device=self._device)
            parts = (data[start:end] for start, end in self._manifest.buckets)
            broadcast(
                communicator,
                parts,
                remaining_s=deadline.remaining,
                stall_s=stall_s,
                on_arrival=self._check_bucket,
            )
            self._raise_if_mismatched()
            for tensor in self._manifest.tensors:
                yield tensor.name, tensor.view(data)
            return
        yield from self._streamed(communicator, deadline, stall_s)
        self._raise_if_mismatched()

    def _streamed(self, communicator: Communicator, deadline: Deadline, stall_s: float) -> Iterator[tuple[str, Tensor]]:
        waiting = list(reversed(self._manifest.tensors))
        held, begin = torch.empty(0, dtype=torch.uint8, device=self._device), 0
        for index, (start, end) in enumerate(self._manifest.buckets):
            bucket = torch.empty(end - start, dtype=torch.uint8, device=self._device)
            broadcast(communicator, [bucket], remaining_s=deadline.remaining, stall_s=stall_s)
            self._check_bucket(index, bucket)
            if self._mismatch:
                # Receive the rest so that the other receivers need not wait, but use none of it.
                continue
            held = torch.cat([held, bucket]) if len(held) else bucket
            while waiting and waiting[-1].end <= end:
                tensor = waiting.pop()
                yield tensor.name, _shifted(tensor, begin).view(held)
            if waiting:
                keep = min(waiting[-1].start, end)
                held, begin = held[keep - begin :].clone(), keep
        while waiting and not self._mismatch:
            # Tensors without elements may stand at the end.
            tensor = waiting.pop()
            yield tensor.name, torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)

    def _check_bucket(self, index: int, bucket: Tensor) -> None:
        view = memoryview(bucket.cpu().numpy())  # type: ignore[arg-type]  # an array is a buffer
        if self._hash is not None:
            self._hash.update(view)
        if (
            (self._hash is None or not self._staged)
            and not self._mismatch
            and checksum(view) != self._manifest.checksums[index]
        ):
            self._mismatch = f"bucket {index} does not have the checksum that was announced"

    def _raise_if_mismatched(self) -> None:
        digest = self._hash.hexdigest() if self._hash is not None else self._manifest.sha256
        if digest != self._manifest.sha256:
            self._mismatch = f"the weights have sha256 {digest}, but {self._manifest.sha256} was announced"
        if self._mismatch:
            raise WeightsError(f"the received bytes are not those that were announced: {self._mismatch}")


def _shifted(tensor: TensorSpec, begin: int) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype, tensor.shape, tensor.start - begin, tensor.end - begin)


def _report_failure(keys: TransferKeys, receiver: str, cause: str) -> None:
    try:
        keys.report(receiver, cause or "failed")
    except WeightsError:
        # The trainer is gone, so it does not wait for the report.
        return
