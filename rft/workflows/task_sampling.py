"""Says how the samples of a task are drawn. Pure."""

from __future__ import annotations

import hashlib

from rft.policy.base import Sampling
from schemas.events import Task


def sampling_of(task: Task, sample: int, attempt: int) -> Sampling:
    """Return how this try of this sample is drawn: a repeated try draws the same, another try differently."""
    digest = hashlib.blake2b(f"{task.seed}/{sample}/{attempt}".encode(), digest_size=4).digest()
    return Sampling(task.max_tokens, task.temperature, task.top_p, int.from_bytes(digest, "big") >> 1)
