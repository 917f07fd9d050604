"""How weight versions reach explorers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Section


class WeightsConfig(Section):
    transport: Literal["checkpoint", "collective"] = "checkpoint"
    """``checkpoint``: a folder for each version, which explorers read. ``collective``: one broadcast of each version
    from the trainer's memory to all explorers that are there; folders only every ``checkpoint_every`` versions and
    for explorers that are behind. See docs/weights.md."""
    backend: Literal["gloo", "nccl", "ipc"] = "gloo"
    """Of the collective: ``gloo`` over TCP from host memory, ``nccl`` between GPUs, ``ipc`` through shared memory, on
    one host, where trainer and explorers may be on one GPU."""
    bind: str = "127.0.0.1"
    """Address of this host that collectives use: the trainer's rendezvous and gloo's connections. Loopback unless
    told otherwise. There is no encryption and no password on it: name the address of a private network only."""
    port: int = Field(default=0, ge=0, le=65535)
    """Of the trainer's rendezvous; 0 takes a free one. Fixed where a firewall stands between."""
    bucket_mb: float = Field(default=16.0, gt=0, le=1024)
    """MiB that are broadcast at once; two are on their way at a time."""
    deadline_s: float = Field(default=30.0, gt=0)
    """A version's transfer, with whatever is tried again, ends by then; members that do not have it are left behind and
    catch up. At least twice what a transfer takes."""
    stall_s: float = Field(default=5.0, gt=0)
    """Longest wait for members to come, or for one bucket; then the transfer goes on without who is missing."""
    checkpoint_every: int = Field(default=10, ge=1)
    """With ``collective``: every so many versions are written as folders, too, for explorers that join late. The first
    and the last always are; others when an explorer needs them."""
    content: Literal["model", "adapters"] = "model"
    """What a version is. ``model``: the whole model; what ``trainer.lora`` trains is merged into it. ``adapters``: only
    what ``trainer.lora`` trains, which is far less. Explorers have the model beneath already, as their
    ``policy.model``, and vLLM computes with the adapters beside it."""
    wire_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of published versions, by every transport. ``bfloat16`` halves the bytes; the trainer keeps float32, so the
    explorers' log-probabilities differ by the rounding (``logprob_gap_*``)."""
    verify: Literal["crc32c", "sha256"] = "crc32c"
    """What a receiver checks before it uses a collective's weights: each bucket's announced checksum, or the version's
    sha256, which also withstands someone on the network who alters bytes and costs a core about a second a GB."""

    @model_validator(mode="after")
    def _consistent(self) -> WeightsConfig:
        if self.stall_s > self.deadline_s:
            raise ValueError(f"stall_s = {self.stall_s:g} is longer than deadline_s = {self.deadline_s:g}")
        return self

    @property
    def bucket_bytes(self) -> int:
        """Bytes of a bucket."""
        return max(int(self.bucket_mb * 2**20), 1)
