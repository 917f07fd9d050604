"""The collective transport, receiving: for anything that takes weights, an explorer or a worker of vLLM.

Does not touch ``torch.distributed``'s default group. Every wait is bounded; ``abort`` breaks it off from another
thread. docs/weights.md has the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from rft.errors import WeightsError
from rft.weights.communicator import Communicator, CommunicatorCache, Deadline, broadcast, connect
from rft.weights.manifest import Manifest, TensorSpec, checksum
from rft.weights.reception import Reception, Verify
from rft.weights.rendezvous import Go, Meeting, reach, transfer_prefix


class Receiver:
    """Takes versions, one after the other. Keeps its communicator while the same members go on."""

    def __init__(self) -> None:
        self._kept = CommunicatorCache()
        self._store: tuple[str, dist.TCPStore] | None = None
        """The trainer's store, with its address; a restarted trainer has another."""

    def receive(
        self, reception: Reception, *, device: torch.device | str = "cpu", staged: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Join the transfer and yield its tensors, named, on ``device``, in the manifest's order.

        Staged, all of the version is in memory and verified before the first tensor is yielded. Otherwise tensors are
        yielded as they come, each of verified buckets, in memory of one tensor and a bucket; a tensor is then valid
        until the next is asked for, and what was loaded is whole only when the iterator ends without an error.

        Raises WeightsError when the transfer goes without this receiver, breaks off, passes its deadline or is not
        what was announced.
        """
        deadline = Deadline(reception.deadline_s)
        manifest = reception.manifest
        host, port, prefix = transfer_prefix(reception.rendezvous, reception.epoch)
        turn = self._kept.begin()
        if self._store is None or self._store[0] != reception.rendezvous:
            self._store = None
            self._store = (reception.rendezvous, reach(host, port, deadline.left()))
        store = self._store[1]
        meeting = Meeting(store, prefix)
        try:
            word = meeting.arrive(reception.receiver, self._kept.name, deadline.left())
        except WeightsError:
            self._store = None
            raise
        if reception.receiver not in word.receivers:
            raise WeightsError(f"the transfer of epoch {reception.epoch} went without this member: it came too late")
        try:
            group = self._join(turn, word, store, reception, deadline)
            intake = _Intake(manifest, reception.verify, torch.device(device), staged=staged)
            for name, tensor in intake.run(group, deadline, reception.stall_s):
                if not self._kept.is_on(turn):
                    raise WeightsError("the transfer was abandoned")
                yield name, tensor
        except BaseException as error:
            self._kept.drop(turn)
            _tell(meeting, reception.receiver, str(error) or type(error).__name__)
            raise
        meeting.done(reception.receiver)

    def abort(self) -> None:
        """Break off what ``receive`` does, from any thread; it raises WeightsError. Leaves the group."""
        self._kept.abort()

    def _join(
        self, turn: object, word: Go, store: dist.Store, reception: Reception, deadline: Deadline
    ) -> Communicator:
        held = self._kept.group
        if held is not None and held.name == word.group:
            return held
        self._kept.drop(turn)
        group = connect(
            word.group,
            store,
            backend=reception.backend,
            rank=1 + word.receivers.index(reception.receiver),
            size=1 + len(word.receivers),
            bind=reception.bind,
            bucket_bytes=reception.bucket_bytes,
            timeout_s=min(deadline.left(), reception.stall_s),
        )
        self._kept.keep(turn, group)
        return group


class _Intake:
    """One transfer's bytes on the receiving side."""

    def __init__(self, manifest: Manifest, verify: Verify, device: torch.device, *, staged: bool) -> None:
        self._manifest = manifest
        self._device = device
        self._staged = staged
        self._hash = hashlib.sha256(manifest.header) if verify == "sha256" else None
        self._mismatch = ""

    def run(self, group: Communicator, deadline: Deadline, stall_s: float) -> Iterator[tuple[str, Tensor]]:
        if self._staged:
            data = torch.empty(self._manifest.data_bytes, dtype=torch.uint8, device=self._device)
            parts = (data[start:end] for start, end in self._manifest.buckets)
            broadcast(group, parts, remaining_s=deadline.left, stall_s=stall_s, arrived=self._arrived)
            self._judge()
            for tensor in self._manifest.tensors:
                yield tensor.name, tensor.view(data)
            return
        yield from self._streamed(group, deadline, stall_s)
        self._judge()

    def _streamed(self, group: Communicator, deadline: Deadline, stall_s: float) -> Iterator[tuple[str, Tensor]]:
        waiting = list(reversed(self._manifest.tensors))
        held, begin = torch.empty(0, dtype=torch.uint8, device=self._device), 0
        for index, (start, end) in enumerate(self._manifest.buckets):
            bucket = torch.empty(end - start, dtype=torch.uint8, device=self._device)
            broadcast(group, [bucket], remaining_s=deadline.left, stall_s=stall_s)
            self._arrived(index, bucket)
            if self._mismatch:
                # The others are not to wait for us: take the rest, use none of it.
                continue
            held = torch.cat([held, bucket]) if len(held) else bucket
            while waiting and waiting[-1].end <= end:
                tensor = waiting.pop()
                yield tensor.name, _moved(tensor, begin).view(held)
            if waiting:
                keep = min(waiting[-1].start, end)
                held, begin = held[keep - begin :].clone(), keep
        while waiting and not self._mismatch:
            # Tensors without elements at the end.
            tensor = waiting.pop()
            yield tensor.name, torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)

    def _arrived(self, index: int, bucket: Tensor) -> None:
        view = memoryview(bucket.cpu().numpy())  # type: ignore[arg-type]  # an array is a buffer
        if self._hash is not None:
            self._hash.update(view)
        if (
            (self._hash is None or not self._staged)
            and not self._mismatch
            and checksum(view) != self._manifest.checksums[index]
        ):
            self._mismatch = f"bucket {index} does not have the checksum that was announced"

    def _judge(self) -> None:
        digest = self._hash.hexdigest() if self._hash is not None else self._manifest.sha256
        if digest != self._manifest.sha256:
            self._mismatch = f"the weights have sha256 {digest}, but {self._manifest.sha256} was announced"
        if self._mismatch:
            raise WeightsError(f"what was received is not what was announced: {self._mismatch}")


def _moved(tensor: TensorSpec, begin: int) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype, tensor.shape, tensor.start - begin, tensor.end - begin)


def _tell(meeting: Meeting, receiver: str, cause: str) -> None:
    try:
        meeting.done(receiver, cause or "failed")
    except WeightsError:
        # The trainer is gone; it will not miss the answer.
        return
