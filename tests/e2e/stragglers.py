"""A workflow with a few rollouts that last far longer than the others."""

from __future__ import annotations

import asyncio

from rft.policy.base import Policy, Sampling
from rft.workflows.base import single_turn
from rft.workflows.trajectory import Trajectory
from schemas.events import Task


async def straggle(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    trajectory = await single_turn(task, policy, sampling)
    if task.split == "train":
        await asyncio.sleep(3.0 if sampling.seed % 8 == 0 else 0.01)
    return trajectory
