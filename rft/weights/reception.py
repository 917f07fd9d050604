"""What one receiver needs to know of one transfer."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Literal

from rft.weights import manifest as manifests
from rft.weights.manifest import Manifest

Verify = Literal["crc32c", "sha256"]


@dataclass(frozen=True, slots=True)
class Reception:
    """All that one receiver needs to know of one transfer. Passes through JSON to another process."""

    rendezvous: str
    """``host:port/nonce``"""
    epoch: int
    receiver: str
    """Own name, as the sender expects it: ``<member_id>#<index>``."""
    backend: str
    bind: str
    """Own address, that the others connect to."""
    layout: bytes
    """:func:`rft.weights.manifest.pack_layout`"""
    checksums: bytes
    """:func:`rft.weights.manifest.pack_checksums`"""
    bucket_bytes: int
    sha256: str
    verify: Verify
    deadline_s: float
    """From the call of ``receive``."""
    stall_s: float

    @property
    def manifest(self) -> Manifest:
        """Raises WeightsError when it contradicts itself."""
        return Manifest.parse(
            manifests.unpack_layout(self.layout),
            manifests.unpack_checksums(self.checksums),
            self.sha256,
            self.bucket_bytes,
        )

    def to_json(self) -> str:
        values = asdict(self)
        for name in ("layout", "checksums"):
            values[name] = base64.b64encode(values[name]).decode()
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Reception:
        values = json.loads(text)
        for name in ("layout", "checksums"):
            values[name] = base64.b64decode(values[name])
        return cls(**values)


def receiver_name(member_id: str, index: int) -> str:
    """Name of a member's receiver ``index``: a member may have several, as a vLLM engine of several workers has."""
    return f"{member_id}#{index}"
