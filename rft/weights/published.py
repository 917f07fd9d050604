"""From the trainer's weights to those that are published: the same, or rounded to a smaller dtype."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from rft.weights.file import WeightsFile, weights_file


def published(weights: WeightsFile, wire_dtype: str) -> WeightsFile:
    """``weights`` with the float32 tensors as ``wire_dtype`` (``float32`` or ``bfloat16``)."""
    if wire_dtype == "float32":
        return weights
    return weights_file(weights.tensors(), {torch.float32: getattr(torch, wire_dtype)}, weights.metadata)


def published_companions(companions: Mapping[str, bytes], wire_dtype: str) -> Mapping[str, bytes]:
    """A model's configuration files, naming the dtype of what lies beside them."""
    if "config.json" not in companions:
        return companions
    description = json.loads(companions["config.json"]) | {"dtype": wire_dtype}
    return {**companions, "config.json": json.dumps(description, indent=2).encode()}
