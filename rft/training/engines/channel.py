"""Sends messages between ranks: JSON and tensors over a gloo group, no pickle.

Either rank 0 sends to all others (:meth:`Channel.broadcast`, :meth:`Channel.receive`), or all others send to rank 0
(:meth:`Channel.gather`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from rft.training.batch import StepBatch
from rft.training.sample import Payload

IDLE_DAYS = 30
"""How long a rank waits for the next message: as long as a trainer may wait for data."""

Message = Mapping[str, Any]
"""JSON values by name."""
Tensors = Mapping[str, Tensor]


class Channel:
    """A gloo group of its own. On GPUs the default group carries tensors of the device only."""

    def __init__(self) -> None:
        """Create the group. ``torch.distributed`` must be initialized, and all ranks must do this at once."""
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=IDLE_DAYS))
        self.rank = dist.get_rank()
        self._ranks = dist.get_world_size()

    def broadcast(self, message: Message, tensors: Tensors | None = None) -> None:
        """Send from rank 0 to all others."""
        content = encode(message, tensors or {})
        dist.broadcast(torch.tensor([len(content)]), src=0, group=self._group)
        dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), src=0, group=self._group)

    def receive(self) -> tuple[Message, dict[str, Tensor]]:
        """Wait for the next broadcast of rank 0, however long it takes."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(size, src=0, group=self._group)
        content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0, group=self._group)
        return decode(content.numpy().tobytes())

    def gather(self, message: Message, tensors: Tensors | None = None) -> list[tuple[Message, dict[str, Tensor]]]:
        """Send from all other ranks to rank 0. Returns their messages on rank 0, in rank order; elsewhere nothing."""
        if self.rank == 0:
            return [self._receive_from(rank) for rank in range(1, self._ranks)]
        content = encode(message, tensors or {})
        dist.send(torch.tensor([len(content)]), dst=0, group=self._group)
        dist.send(torch.frombuffer(bytearray(content), dtype=torch.uint8), dst=0, group=self._group)
        return []

    def sum(self, tensor: Tensor) -> None:
        """Sum ``tensor`` over the ranks, in place."""
        total = tensor.cpu()
        dist.all_reduce(total, group=self._group)
        tensor.copy_(total)

    def _receive_from(self, rank: int) -> tuple[Message, dict[str, Tensor]]:
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, src=rank, group=self._group)
        content = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(content, src=rank, group=self._group)
        return decode(content.numpy().tobytes())


def encode(message: Message, tensors: Tensors) -> bytes:
    """Encode as the JSON's length in 8 bytes (little-endian), the JSON, and the tensors as safetensors."""
    text = json.dumps(message).encode()
    return len(text).to_bytes(8, "little") + text + save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})


def decode(content: bytes) -> tuple[Message, dict[str, Tensor]]:
    """Decode what :func:`encode` returned."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), load(content[start:])


def encode_batch(batch: StepBatch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a batch as JSON values and tensors. The payloads' arrays are concatenated, their lengths are added."""
    message: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name in _field_names(Payload):
        parts = [getattr(payload, name) for payload in batch.payloads]
        tensors[f"lengths/{name}"] = torch.tensor([len(part) for part in parts])
        tensors[f"payloads/{name}"] = torch.from_numpy(np.concatenate(parts))
    for name in _field_names(StepBatch):
        value = getattr(batch, name)
        if isinstance(value, np.ndarray):
            tensors[name] = torch.from_numpy(value)
        elif name != "payloads":
            message[name] = value
    return message, tensors


def decode_batch(message: Message, tensors: Tensors) -> StepBatch:
    """Return the batch that :func:`encode_batch` was given."""
    columns = [
        np.split(tensors[f"payloads/{name}"].numpy(), torch.cumsum(tensors[f"lengths/{name}"], 0).tolist()[:-1])
        for name in _field_names(Payload)
    ]
    values: dict[str, Any] = {name: tensors[name].numpy() for name in _field_names(StepBatch) if name in tensors}
    values |= {name: tuple(value) for name, value in message.items()}
    return StepBatch(payloads=[Payload(*arrays) for arrays in zip(*columns, strict=True)], **values)


def _field_names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]
