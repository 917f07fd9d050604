"""A weight version in host memory: a safetensors file that is laid out, filled and hashed in one pass.

Its bytes are those of safetensors' own ``save``, which holds the weights three times over while it runs and can be
hashed only afterwards; so training would stand still for longer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from rft.weights.manifest import DTYPES, header_of, metadata_of, specs_of

_HASHED_AT_ONCE = 4 * 2**20
"""Hashed beside the filling in parts of so many bytes, and not less: small models need no thread for it."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "F16", "BF16", "I32", "F32", "F64", "I64")
"""safetensors puts the last of these first; the same dtype by name."""

Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""dtype and shape of each tensor, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """A safetensors file."""

    data: memoryview
    """Read-only bytes."""
    sha256: str

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, in the order of their places. They are views of ``data``, not to be written to."""
        header = header_of(self.data)
        # The array beneath, since torch warns of memory that is read-only.
        whole = torch.frombuffer(self.data.obj, dtype=torch.uint8)[len(header) :]
        return {spec.name: spec.view(whole) for spec in specs_of(header)}

    @property
    def metadata(self) -> dict[str, str]:
        """What its header says beside the tensors."""
        return metadata_of(header_of(self.data))


class Filling:
    """A file that is being made. Use it in a ``with`` block, whose end waits for the hash."""

    def __init__(self, layout: Layout, metadata: Mapping[str, str] | None = None) -> None:
        """``metadata`` comes into the header, beside safetensors' own ``format``."""
        header = _header(layout, metadata or {})
        self._specs = {spec.name: spec for spec in specs_of(header)}
        size = len(header) + max((spec.end for spec in self._specs.values()), default=0)
        self._whole = torch.empty(size, dtype=torch.uint8)
        self._view = memoryview(self._whole.numpy())  # type: ignore[arg-type]  # an array is a buffer
        self._view[: len(header)] = header
        self._data = self._whole[len(header) :]
        self._begin = len(header)
        self._missing = list(self._specs)
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._hasher = ThreadPoolExecutor(1, "sha256")
        self._hashing: list[Future[None]] = []

    def __enter__(self) -> Filling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hasher.shutdown(cancel_futures=kind is not None)

    @property
    def order(self) -> Iterable[str]:
        """The tensors' names in the order of their places. Put in this order, they are hashed as they come."""
        return self._specs

    def put(self, name: str, tensor: Tensor) -> None:
        """Copy ``tensor``, on any device, of the layout's shape, to its place. Any order will do."""
        spec = self._specs[name]
        if tensor.shape != spec.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the layout says {spec.shape}")
        spec.view(self._data).copy_(tensor.detach())
        self._missing.remove(name)
        filled = self._begin + (self._specs[self._missing[0]].start if self._missing else len(self._data))
        if filled - self._hashed >= _HASHED_AT_ONCE:
            self._hashing.append(self._hasher.submit(self._hash.update, self._view[self._hashed : filled]))
            self._hashed = filled

    def done(self) -> WeightsFile:
        """The file. Raises ValueError when a tensor was not put."""
        if self._missing:
            raise ValueError(f"no weights of {', '.join(self._missing[:3])}")
        for part in self._hashing:
            part.result()
        self._hash.update(self._view[self._hashed :])
        self._hashed = len(self._view)
        return WeightsFile(self._view.toreadonly(), self._hash.hexdigest())


def weights_file(
    tensors: Mapping[str, Tensor],
    dtypes: Mapping[torch.dtype, torch.dtype] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> WeightsFile:
    """``tensors`` as a file; those of a dtype in ``dtypes`` are converted to what that says."""
    change = dtypes or {}
    layout = {name: (change.get(t.dtype, t.dtype), t.shape) for name, t in tensors.items()}
    with Filling(layout, metadata) as filling:
        for name in filling.order:
            filling.put(name, tensors[name])
        return filling.done()


def _header(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    described: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    end = 0
    for name in sorted(layout, key=lambda name: (-_ORDER.index(_NAMES[layout[name][0]]), name)):
        dtype, shape = layout[name]
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        described[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
