"""Holds weights in host memory as a safetensors file, which is laid out, filled and hashed in one pass.

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

from rft.model_files.safetensors_header import DTYPES, read_header, read_metadata, tensor_specs

_HASHED_AT_ONCE = 4 * 2**20
"""Smallest part, in bytes, that a thread hashes while further tensors are put; small models need no thread."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "F16", "BF16", "I32", "F32", "F64", "I64")
"""safetensors sorts tensors by dtype, the last of these first, and within a dtype by name."""

Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""dtype and shape of each tensor, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """Holds a safetensors file."""

    data: memoryview
    """Read-only bytes."""
    sha256: str

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by name, in the order of their offsets. They are views of ``data``: only read them."""
        header = read_header(self.data)
        # The underlying array, because torch warns of read-only memory.
        whole = torch.frombuffer(self.data.obj, dtype=torch.uint8)[len(header) :]
        return {spec.name: spec.view(whole) for spec in tensor_specs(header)}

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in its header."""
        return read_metadata(read_header(self.data))


class WeightsFileBuilder:
    """Builds a file tensor by tensor. Use it in a ``with`` block, whose end waits for the hash."""

    def __init__(self, layout: Layout, metadata: Mapping[str, str] | None = None) -> None:
        """``metadata`` is put into the header, in addition to safetensors' own ``format``."""
        header = _header(layout, metadata or {})
        self._specs = {spec.name: spec for spec in tensor_specs(header)}
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

    def __enter__(self) -> WeightsFileBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hasher.shutdown(cancel_futures=kind is not None)

    @property
    def order(self) -> Iterable[str]:
        """The tensors' names in the order of their offsets. Tensors put in this order are hashed meanwhile."""
        return self._specs

    def put(self, name: str, tensor: Tensor) -> None:
        """Copy ``tensor``, on any device, into the file. Any order will do.

        Raises ValueError when its shape is not that of the layout.
        """
        spec = self._specs[name]
        if tensor.shape != spec.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but the layout has {spec.shape}")
        spec.view(self._data).copy_(tensor.detach())
        self._missing.remove(name)
        filled = self._begin + (self._specs[self._missing[0]].start if self._missing else len(self._data))
        if filled - self._hashed >= _HASHED_AT_ONCE:
            self._hashing.append(self._hasher.submit(self._hash.update, self._view[self._hashed : filled]))
            self._hashed = filled

    def done(self) -> WeightsFile:
        """Return the file. Raises ValueError when a tensor was not put."""
        if self._missing:
            raise ValueError(f"no weights of {', '.join(self._missing[:3])}")
        for part in self._hashing:
            part.result()
        self._hash.update(self._view[self._hashed :])
        self._hashed = len(self._view)
        return WeightsFile(self._view.toreadonly(), self._hash.hexdigest())


def build_weights_file(
    tensors: Mapping[str, Tensor],
    dtypes: Mapping[torch.dtype, torch.dtype] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> WeightsFile:
    """Build a file of ``tensors``. ``dtypes`` maps dtypes to those that their tensors are converted to."""
    change = dtypes or {}
    layout = {name: (change.get(t.dtype, t.dtype), t.shape) for name, t in tensors.items()}
    with WeightsFileBuilder(layout, metadata) as filling:
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
