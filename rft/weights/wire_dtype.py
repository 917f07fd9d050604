"""Converts the trainer's weights to the dtype that is published (``weights.wire_dtype``)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from rft.model_files.weights_file import WeightsFile, build_weights_file


class WireDtype:
    """Rounds float32 tensors to ``dtype`` (``float32`` or ``bfloat16``) and remembers the newest result."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._newest: tuple[WeightsFile, WeightsFile] | None = None

    def convert(self, weights: WeightsFile) -> WeightsFile:
        """Return ``weights`` as they are published."""
        if self._newest is None or self._newest[0] is not weights:
            self._newest = (weights, weights_in(self._dtype, weights))
        return self._newest[1]


def weights_in(dtype: str, weights: WeightsFile) -> WeightsFile:
    """Return ``weights`` with the float32 tensors rounded to ``dtype``; the same file if that is float32."""
    if dtype == "float32":
        return weights
    return build_weights_file(weights.tensors(), {torch.float32: getattr(torch, dtype)}, weights.metadata)


def companions_in(dtype: str, companions: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return a model's configuration files with ``dtype`` named in ``config.json``."""
    if "config.json" not in companions:
        return companions
    description = json.loads(companions["config.json"]) | {"dtype": dtype}
    return {**companions, "config.json": json.dumps(description, indent=2).encode()}
