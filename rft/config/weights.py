"""``[weights]``: how weight versions reach explorers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rft.config.section import Section


class WeightsConfig(Section):
    transport: Literal["checkpoint", "collective"] = "checkpoint"
    """``checkpoint``: the trainer writes a folder for each version, and explorers read it. ``collective``: the trainer
    broadcasts each version from memory to all explorers that are there; folders are written only every
    ``checkpoint_every`` versions and for explorers that are behind. See docs/weights.md."""
    backend: Literal["gloo", "nccl", "ipc"] = "gloo"
    """What a collective uses: ``gloo`` is TCP from host memory, ``nccl`` connects GPUs, ``ipc`` is shared memory on one
    host, where trainer and explorers may use the same GPU."""
    bind: str = "127.0.0.1"
    """Address of this host for collectives: for the trainer's rendezvous and gloo's connections. Connections have no
    encryption and no password, so use only an address of a private network."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the trainer's rendezvous; 0 takes a free one. Set it if a firewall needs a fixed port."""
    bucket_mb: float = Field(default=16.0, gt=0, le=1024)
    """Size in MiB of one broadcast. Two are in flight at a time."""
    deadline_s: float = Field(default=30.0, gt=0)
    """Time limit of a version's transfer, retries included. Members that do not have the version by then are left
    behind and catch up. Allow at least twice the duration of a transfer."""
    stall_s: float = Field(default=5.0, gt=0)
    """Longest wait for members to join, or for one bucket. Then the transfer continues without the missing members."""
    checkpoint_every: int = Field(default=10, ge=1)
    """With ``collective``: one version in this many is also written as a folder, for explorers that join late.
    The first and the last version always are, and others when an explorer needs them."""
    content: Literal["model", "adapters"] = "model"
    """What a version contains. ``model``: the whole model, with the adapters of ``trainer.lora`` merged into it.
    ``adapters``: only the adapters, which are far smaller. Explorers already have the base model as ``policy.model``;
    see ``policy.vllm.merge_adapters`` for how vLLM uses the adapters."""
    wire_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights in published versions, with every transport. ``bfloat16`` halves the bytes. The trainer keeps
    float32, so the explorers' log-probabilities differ by the rounding (``logprob_gap_*``)."""
    verify: Literal["crc32c", "sha256"] = "crc32c"
    """What a receiver checks before it uses weights from a collective: each bucket's announced checksum, or the
    version's sha256. The latter also detects deliberate changes on the network, and costs one core about a second per
    GB."""

    @model_validator(mode="after")
    def _consistent(self) -> WeightsConfig:
        if self.stall_s > self.deadline_s:
            raise ValueError(f"stall_s = {self.stall_s:g} is longer than deadline_s = {self.deadline_s:g}")
        return self

    @property
    def bucket_bytes(self) -> int:
        """Size of a bucket in bytes."""
        return max(int(self.bucket_mb * 2**20), 1)
