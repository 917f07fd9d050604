"""From the trainer's weights to those that are published: the same, or rounded to a smaller dtype."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import load, save


def published(weights: bytes, wire_dtype: str) -> bytes:
    """The safetensors file ``weights`` with its float32 tensors as ``wire_dtype`` (``float32`` or ``bfloat16``)."""
    if wire_dtype == "float32":
        return weights
    dtype = {"bfloat16": torch.bfloat16}[wire_dtype]
    tensors = {
        name: tensor.to(dtype) if tensor.dtype == torch.float32 else tensor for name, tensor in load(weights).items()
    }
    return save(tensors, {"format": "pt"})


def published_companions(companions: Mapping[str, bytes], wire_dtype: str) -> Mapping[str, bytes]:
    """A model's configuration files, naming the dtype of what lies beside them."""
    if "config.json" not in companions:
        return companions
    description = json.loads(companions["config.json"]) | {"dtype": wire_dtype}
    return {**companions, "config.json": json.dumps(description, indent=2).encode()}
