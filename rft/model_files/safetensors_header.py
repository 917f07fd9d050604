"""Reads the headers of safetensors files: which bytes are which tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rft.errors import WeightsError

MAX_HEADER_BYTES = 100 * 1024 * 1024
"""The limit of safetensors itself."""
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Describes one tensor and where it lies in the data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int
    """Exclusive, in bytes."""

    def view(self, data: Tensor) -> Tensor:
        """Return this tensor from ``data``, uint8 [data_bytes]: a view where its alignment allows one, else a copy."""
        part = data[self.start : self.end]
        if self.start % self.dtype.itemsize:
            part = part.clone()
        return part.view(self.dtype).view(self.shape)


def read_header(weights: bytes | memoryview) -> bytes:
    """Return the beginning of a safetensors file: the length of its JSON, and the JSON. Raises WeightsError."""
    view = memoryview(weights)
    return bytes(view[: _header_size(view)])


def _header_size(view: memoryview) -> int:
    size = 8 + int.from_bytes(view[:8], "little") if len(view) >= 8 else 0
    if not 8 < size <= min(len(view), MAX_HEADER_BYTES + 8):
        raise WeightsError("these weights are not a safetensors file")
    return size


def read_metadata(header: bytes) -> dict[str, str]:
    """Return the metadata in a header."""
    metadata: dict[str, str] = json.loads(header[8:]).get("__metadata__", {})
    return metadata


def tensor_specs(header: bytes) -> tuple[TensorSpec, ...]:
    """Return the tensors that a header names, by offset. Raises WeightsError when the header contradicts itself."""
    if _header_size(memoryview(header)) != len(header):
        raise WeightsError("a safetensors header does not have the length that it names")
    try:
        described = json.loads(header[8:])
        tensors = sorted(
            (_tensor(name, one) for name, one in described.items() if name != "__metadata__"),
            key=lambda tensor: (tensor.start, tensor.end),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"a safetensors header cannot be read: {type(error).__name__}: {error}") from error
    reached = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * tensor.dtype.itemsize
        if tensor.start != reached or tensor.end != tensor.start + size or min(tensor.shape, default=0) < 0:
            raise WeightsError(
                f"a safetensors header puts {tensor.name} {tensor.shape} at {tensor.start} to {tensor.end}, which does "
                "not fit its shape or its neighbors"
            )
        reached = tensor.end
    return tuple(tensors)


def _tensor(name: str, described: Mapping[str, Any]) -> TensorSpec:
    start, end = described["data_offsets"]
    return TensorSpec(name, DTYPES[described["dtype"]], tuple(map(int, described["shape"])), int(start), int(end))
