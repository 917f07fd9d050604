"""Messages between the ranks: JSON and tensors over a gloo group. No pickle.

Rank 0 speaks and all others hear (:meth:`Channel.tell`, :meth:`Channel.hear`), or all others speak and rank 0 hears
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

Words = Mapping[str, Any]
"""JSON values by name."""
Tensors = Mapping[str, Tensor]


class Channel:
    """A gloo group of its own, for on GPUs the others carry tensors of the device only."""

    def __init__(self) -> None:
        """``torch.distributed`` is initialised, and all ranks do this at once."""
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=IDLE_DAYS))
        self.rank = dist.get_rank()
        self._ranks = dist.get_world_size()

    def tell(self, words: Words, tensors: Tensors | None = None) -> None:
        """Rank 0 tells all others."""
        content = encode(words, tensors or {})
        dist.broadcast(torch.tensor([len(content)]), src=0, group=self._group)
        dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), src=0, group=self._group)

    def hear(self) -> tuple[Words, dict[str, Tensor]]:
        """What rank 0 tells, however long it takes."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(size, src=0, group=self._group)
        content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0, group=self._group)
        return decode(content.numpy().tobytes())

    def gather(self, words: Words, tensors: Tensors | None = None) -> list[tuple[Words, dict[str, Tensor]]]:
        """What each rank gives, on rank 0 the others' in order; on the others nothing."""
        if self.rank == 0:
            return [self._receive(rank) for rank in range(1, self._ranks)]
        content = encode(words, tensors or {})
        dist.send(torch.tensor([len(content)]), dst=0, group=self._group)
        dist.send(torch.frombuffer(bytearray(content), dtype=torch.uint8), dst=0, group=self._group)
        return []

    def sum(self, tensor: Tensor) -> None:
        """Add up ``tensor`` over the ranks, in place."""
        total = tensor.cpu()
        dist.all_reduce(total, group=self._group)
        tensor.copy_(total)

    def _receive(self, rank: int) -> tuple[Words, dict[str, Tensor]]:
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, src=rank, group=self._group)
        content = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(content, src=rank, group=self._group)
        return decode(content.numpy().tobytes())


def encode(words: Words, tensors: Tensors) -> bytes:
    """Length of the words in 8 bytes, the words as JSON, the tensors as safetensors."""
    text = json.dumps(words).encode()
    return len(text).to_bytes(8, "little") + text + save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})


def decode(content: bytes) -> tuple[Words, dict[str, Tensor]]:
    """Back from :func:`encode`."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), load(content[start:])


def batch_message(batch: StepBatch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A step's batch: arrays as tensors, the arrays of all payloads one after the other, all else as words."""
    words: dict[str, Any] = {}
    tensors = {"lengths": torch.tensor([len(payload.tokens) for payload in batch.payloads])}
    for name in _names(Payload):
        parts = [getattr(payload, name) for payload in batch.payloads]
        tensors[f"payloads/{name}"] = torch.from_numpy(np.concatenate(parts))
    for name in _names(StepBatch):
        value = getattr(batch, name)
        if isinstance(value, np.ndarray):
            tensors[name] = torch.from_numpy(value)
        elif name != "payloads":
            words[name] = value
    return words, tensors


def read_batch(words: Words, tensors: Tensors) -> StepBatch:
    """Back from :func:`batch_message`."""
    ends = torch.cumsum(tensors["lengths"], 0).tolist()[:-1]
    columns = [np.split(tensors[f"payloads/{name}"].numpy(), ends) for name in _names(Payload)]
    given: dict[str, Any] = {name: tensors[name].numpy() for name in _names(StepBatch) if name in tensors}
    given |= {name: tuple(value) for name, value in words.items()}
    return StepBatch(payloads=[Payload(*arrays) for arrays in zip(*columns, strict=True)], **given)


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]
