"""Describes one transfer to one of its receivers."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Literal

from rft.weights.manifest import Manifest, unpack_checksums, unpack_layout

Verify = Literal["crc32c", "sha256"]


@dataclass(frozen=True, slots=True)
class TransferSpec:
    """Holds all that one receiver needs to join one transfer. Passes through JSON to another process."""

    rendezvous: str
    """``host:port/nonce``"""
    epoch: int
    receiver: str
    """The receiver's name: ``<member_id>#<index>``."""
    backend: str
    bind: str
    """The receiver's own address, to which the others connect."""
    layout: bytes
    """:func:`rft.weights.manifest.pack_layout`"""
    checksums: bytes
    """:func:`rft.weights.manifest.pack_checksums`"""
    bucket_bytes: int
    sha256: str
    verify: Verify
    deadline_s: float
    """Limit of the whole transfer, from the call of ``receive``."""
    stall_s: float
    """Limit of the time without progress."""

    @property
    def manifest(self) -> Manifest:
        """The unpacked manifest. Raises WeightsError when it contradicts itself."""
        return Manifest.parse(
            unpack_layout(self.layout),
            unpack_checksums(self.checksums),
            self.sha256,
            self.bucket_bytes,
        )

    def to_json(self) -> str:
        """Return it as JSON text, with bytes in base64."""
        values = asdict(self)
        for name in ("layout", "checksums"):
            values[name] = base64.b64encode(values[name]).decode()
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> TransferSpec:
        """Undo :meth:`to_json`."""
        values = json.loads(text)
        for name in ("layout", "checksums"):
            values[name] = base64.b64decode(values[name])
        return cls(**values)


def receiver_name(member_id: str, index: int) -> str:
    """Name a member's receiver ``index``. A member may have several: a vLLM engine has one for each worker."""
    return f"{member_id}#{index}"
