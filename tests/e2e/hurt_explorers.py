"""A workflow whose import prepares the explorers of a test: one dies and one stops in the middle of a transfer.

``HURT`` names a folder. The first explorer that removes the file ``kill`` or ``stop`` from it does what the file is
called, when it has received a few buckets. While there is a file ``hold``, nothing is rolled out. Each explorer writes
there which versions it has taken into use, with the sha256 of their tensors.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from safetensors.torch import save

from rft.policy.base import Policy, Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.weights import receiver
from rft.workflows.base import single_turn
from rft.workflows.trajectory import Trajectory
from schemas.events import Task

FOLDER = Path(os.environ["HURT"])
BUCKET = 3

_arrived = receiver._IncomingTransfer._check_bucket
_take = TransformersPolicy._replace_weights


def arrived(self: Any, index: int, bucket: Any) -> None:
    if index == BUCKET:
        for name, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
            try:
                (FOLDER / name).rename(FOLDER / f"{name}.{os.getpid()}")
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), number)
    _arrived(self, index, bucket)


def take(self: Any, tensors: dict[str, Any], adapter: Any, version: int) -> None:
    digest = hashlib.sha256(save(tensors, {"format": "pt"})).hexdigest()
    _take(self, tensors, adapter, version)
    with (FOLDER / f"took.{os.getpid()}").open("a") as file:
        file.write(f"{version} {digest}\n")


async def hurt(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    await asyncio.sleep(0.2)
    while (FOLDER / "hold").exists():  # noqa: ASYNC110 (another process removes it)
        await asyncio.sleep(0.1)
    return await single_turn(task, policy, sampling)


receiver._IncomingTransfer._check_bucket = arrived  # type: ignore[method-assign]
TransformersPolicy._replace_weights = take  # type: ignore[method-assign]
