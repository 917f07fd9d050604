"""Describes the bytes of a transfer: which bytes are which tensor, where buckets begin, and their checksums.

A transfer sends the data part of a version's safetensors file, bucket by bucket; the file's header is the layout. So a
version has the same digest whichever transport brings it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import crc32c
import numpy as np

from rft.errors import WeightsError
from rft.model_files.safetensors_header import MAX_HEADER_BYTES, TensorSpec, read_header, read_metadata, tensor_specs


@dataclass(frozen=True, slots=True)
class Manifest:
    """Describes what a transfer sends."""

    header: bytes
    """The beginning of the safetensors file: its length (8 bytes, little-endian) and JSON."""
    tensors: tuple[TensorSpec, ...]
    """In the order of their offsets; together they are all of the data."""
    data_bytes: int
    bucket_bytes: int
    checksums: tuple[int, ...]
    """CRC-32C of each bucket."""
    sha256: str
    """Digest of the whole file: header and data."""

    @classmethod
    def describe(cls, weights: bytes | memoryview, sha256: str, bucket_bytes: int) -> Manifest:
        """Make the manifest of a safetensors file whose digest is ``sha256``. Raises WeightsError."""
        view = memoryview(weights)
        header = read_header(view)
        data = view[len(header) :]
        sums = tuple(checksum(data[start:end]) for start, end in buckets(len(data), bucket_bytes))
        return cls.parse(header, sums, sha256, bucket_bytes)

    @classmethod
    def parse(cls, header: bytes, checksums: tuple[int, ...], sha256: str, bucket_bytes: int) -> Manifest:
        """Make a manifest of its parts. Raises WeightsError when they contradict each other."""
        tensors = tensor_specs(header)
        data_bytes = tensors[-1].end if tensors else 0
        if bucket_bytes < 1 or len(checksums) != math.ceil(data_bytes / bucket_bytes):
            raise WeightsError(
                f"a manifest of {data_bytes} bytes in buckets of {bucket_bytes} has {len(checksums)} checksums"
            )
        return cls(header, tensors, data_bytes, bucket_bytes, checksums, sha256)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the header."""
        return read_metadata(self.header)

    @property
    def buckets(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each bucket in the data, in bytes; ends are exclusive."""
        return buckets(self.data_bytes, self.bucket_bytes)


def buckets(size: int, bucket_bytes: int) -> Iterator[tuple[int, int]]:
    """Return (start, end) of consecutive buckets of ``size`` bytes; the last may be shorter."""
    return ((start, min(start + bucket_bytes, size)) for start in range(0, size, bucket_bytes))


def checksum(part: memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of ``part``."""
    return int(crc32c.crc32c(part))


def pack_layout(header: bytes) -> bytes:
    """Compress a header as the event carries it."""
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
    """Pack the checksums, one a bucket, as little-endian u4."""
    return np.array(checksums, dtype="<u4").tobytes()


def unpack_checksums(packed: bytes) -> tuple[int, ...]:
    """Undo :func:`pack_checksums`. Raises WeightsError."""
    if len(packed) % 4:
        raise WeightsError(f"checksums of {len(packed)} bytes are cut off")
    return tuple(int(one) for one in np.frombuffer(packed, dtype="<u4"))
