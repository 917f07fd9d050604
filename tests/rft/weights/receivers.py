"""Runs receivers in processes of their own, which are controlled through a pipe."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors.torch import save

from rft.weights.manifest import Manifest, pack_checksums, pack_layout
from rft.weights.sender import Sender
from rft.weights.transfer_spec import TransferSpec, receiver_name


def weights_of(version: int, *, elements: int = 100_000) -> bytes:
    """A safetensors file of several dtypes, other values for each version."""
    numbers = torch.Generator().manual_seed(version)
    return save(
        {
            "big": torch.randn(elements, generator=numbers),
            "half": torch.randn(33, 7, generator=numbers).bfloat16(),
            "scalar": torch.tensor(float(version)),
            "empty": torch.empty(0, 4),
            "counts": torch.arange(5) + version,
            "flags": torch.tensor([True, False, True]),
        },
        {"format": "pt"},
    )


def digest(weights: bytes) -> str:
    return hashlib.sha256(weights).hexdigest()


def describe(weights: bytes, bucket_bytes: int = 64 * 1024) -> Manifest:
    return Manifest.describe(weights, digest(weights), bucket_bytes)


def transfer_spec(sender: Sender, manifest: Manifest, epoch: int, member: str, **changes: Any) -> TransferSpec:
    values: dict[str, Any] = {
        "rendezvous": sender.address,
        "epoch": epoch,
        "receiver": receiver_name(member, 0),
        "backend": sender.backend,
        "bind": "127.0.0.1",
        "layout": pack_layout(manifest.header),
        "checksums": pack_checksums(manifest.checksums),
        "bucket_bytes": manifest.bucket_bytes,
        "sha256": manifest.sha256,
        "verify": "sha256",
        "deadline_s": 10.0,
        "stall_s": 2.0,
    }
    return TransferSpec(**(values | changes))


class ReceiverProcess:
    """A process with one Receiver. ``receive`` starts it, ``result`` waits for (sha256 of its tensors, error)."""

    def __init__(self, name: str) -> None:
        self.name = name
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["rft.weights.receiver"])
        self._here, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there,), daemon=True)
        self.process.start()
        there.close()

    def receive(self, spec: TransferSpec, *, staged: bool = True, die_at_bucket: int = -1) -> None:
        self._here.send((spec.to_json(), staged, die_at_bucket))

    def result(self, timeout_s: float = 20) -> tuple[str, str]:
        assert self._here.poll(timeout_s), f"{self.name} did not answer"
        answer: tuple[str, str] = self._here.recv()
        return answer

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection) -> None:
    from rft.errors import WeightsError
    from rft.weights import receiver

    torch.set_num_threads(1)
    taker = receiver.Receiver()
    original = receiver._IncomingTransfer._check_bucket
    while True:
        text, staged, die_at = pipe.recv()

        def arrived(self: Any, index: int, bucket: Any, die_at: int = die_at) -> None:
            if index == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, index, bucket)

        receiver._IncomingTransfer._check_bucket = arrived  # type: ignore[method-assign]
        try:
            tensors = taker.receive(TransferSpec.from_json(text), staged=staged)
            found = {name: tensor.clone() for name, tensor in tensors}
            pipe.send((digest(save(found, {"format": "pt"})), ""))
        except WeightsError as error:
            pipe.send(("", str(error)))


def wait_for(condition: Any, timeout_s: float, what: str) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"no {what} within {timeout_s} s"
        time.sleep(0.01)
