"""The layout of a transfer: which bytes are which tensor, where buckets begin, and what their sums are.

What travels is the data part of the safetensors file that a version is, bucket after bucket; its header is the layout.
So a version has one digest, by whichever transport it came.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import crc32c
import numpy as np
import torch
from torch import Tensor

from rft.errors import WeightsError

MAX_HEADER_BYTES = 100 * 1024 * 1024
"""As safetensors itself allows."""
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
    """One tensor and its place in the data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int
    """Exclusive, in bytes."""

    def view(self, data: Tensor) -> Tensor:
        """This tensor in ``data``, uint8 [data_bytes]; a view where its alignment allows one."""
        part = data[self.start : self.end]
        if self.start % self.dtype.itemsize:
            part = part.clone()
        return part.view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a transfer holds."""

    header: bytes
    """The safetensors file's beginning: its length (8 bytes, little-endian) and JSON."""
    tensors: tuple[TensorSpec, ...]
    """In the order of their places; together they are all of the data."""
    data_bytes: int
    bucket_bytes: int
    checksums: tuple[int, ...]
    """CRC-32C of each bucket."""
    sha256: str
    """Digest of the whole file: header and data."""

    @classmethod
    def describe(cls, weights: bytes | memoryview, sha256: str, bucket_bytes: int) -> Manifest:
        """The manifest of a safetensors file whose digest is ``sha256``. Raises WeightsError."""
        view = memoryview(weights)
        header = header_of(view)
        data = view[len(header) :]
        sums = tuple(checksum(data[start:end]) for start, end in buckets(len(data), bucket_bytes))
        return cls.parse(header, sums, sha256, bucket_bytes)

    @classmethod
    def parse(cls, header: bytes, checksums: tuple[int, ...], sha256: str, bucket_bytes: int) -> Manifest:
        """Check and read a manifest's parts. Raises WeightsError when they contradict each other."""
        tensors = specs_of(header)
        data_bytes = tensors[-1].end if tensors else 0
        if bucket_bytes < 1 or len(checksums) != math.ceil(data_bytes / bucket_bytes):
            raise WeightsError(
                f"a manifest of {data_bytes} bytes in buckets of {bucket_bytes} has {len(checksums)} checksums"
            )
        return cls(header, tensors, data_bytes, bucket_bytes, checksums, sha256)

    @property
    def metadata(self) -> dict[str, str]:
        """What the header says beside the tensors."""
        return metadata_of(self.header)

    @property
    def buckets(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each bucket in the data."""
        return buckets(self.data_bytes, self.bucket_bytes)


def buckets(size: int, bucket_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, end) of consecutive buckets; the last may be shorter."""
    return ((start, min(start + bucket_bytes, size)) for start in range(0, size, bucket_bytes))


def checksum(part: memoryview) -> int:
    """CRC-32C (Castagnoli)."""
    return int(crc32c.crc32c(part))


def pack_layout(header: bytes) -> bytes:
    """As the event carries it."""
    return zlib.compress(header, 6)


def unpack_layout(packed: bytes) -> bytes:
    """Undo :func:`pack_layout`. Raises WeightsError."""
    unpacker = zlib.decompressobj()
    try:
        header = unpacker.decompress(packed, MAX_HEADER_BYTES + 8)
    except zlib.error as error:
        raise WeightsError(f"a manifest cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise WeightsError(f"a manifest is cut off or larger than {MAX_HEADER_BYTES} bytes")
    return header


def pack_checksums(checksums: tuple[int, ...]) -> bytes:
    """Little-endian u4, one a bucket."""
    return np.array(checksums, dtype="<u4").tobytes()


def unpack_checksums(packed: bytes) -> tuple[int, ...]:
    """Undo :func:`pack_checksums`. Raises WeightsError."""
    if len(packed) % 4:
        raise WeightsError(f"checksums of {len(packed)} bytes are cut off")
    return tuple(int(one) for one in np.frombuffer(packed, dtype="<u4"))


def header_of(weights: bytes | memoryview) -> bytes:
    """The beginning of a safetensors file: the length of its JSON, and that. Raises WeightsError."""
    view = memoryview(weights)
    return bytes(view[: _header_size(view)])


def _header_size(view: memoryview) -> int:
    size = 8 + int.from_bytes(view[:8], "little") if len(view) >= 8 else 0
    if not 8 < size <= min(len(view), MAX_HEADER_BYTES + 8):
        raise WeightsError("these weights are no safetensors file")
    return size


def metadata_of(header: bytes) -> dict[str, str]:
    """What a header says beside the tensors."""
    metadata: dict[str, str] = json.loads(header[8:]).get("__metadata__", {})
    return metadata


def specs_of(header: bytes) -> tuple[TensorSpec, ...]:
    """The tensors that a header names, in the order of their places. Raises WeightsError when it contradicts itself."""
    if _header_size(memoryview(header)) != len(header):
        raise WeightsError("a manifest's header does not have the length that it names")
    try:
        described = json.loads(header[8:])
        tensors = sorted(
            (_tensor(name, one) for name, one in described.items() if name != "__metadata__"),
            key=lambda tensor: (tensor.start, tensor.end),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"a manifest cannot be read: {type(error).__name__}: {error}") from error
    reached = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * tensor.dtype.itemsize
        if tensor.start != reached or tensor.end != tensor.start + size or min(tensor.shape, default=0) < 0:
            raise WeightsError(
                f"a manifest puts {tensor.name} {tensor.shape} at {tensor.start} to {tensor.end}, which does not "
                "fit its shape or its neighbours"
            )
        reached = tensor.end
    return tuple(tensors)


def _tensor(name: str, described: Mapping[str, Any]) -> TensorSpec:
    start, end = described["data_offsets"]
    return TensorSpec(name, DTYPES[described["dtype"]], tuple(map(int, described["shape"])), int(start), int(end))
