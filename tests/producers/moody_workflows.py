"""A workflow that fails as real ones do. The task's metadata names the way ("mood")."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

import numpy as np

from rft.policy.base import Policy, Sampling
from rft.workflows.base import single_turn
from rft.workflows.task_sampling import sampling_of
from rft.workflows.trajectory import Trajectory
from schemas.events import Task


async def leave() -> None:
    sys.exit("bye")


async def moody(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    mood = json.loads(task.metadata).get("mood")
    if mood == "raise":
        raise ValueError("bad mood")
    if mood == "hang":
        await asyncio.sleep(3600)
    if mood == "block":
        time.sleep(3600)  # noqa: ASYNC251  # what it is there to show
    if mood == "exit":
        await asyncio.gather(leave(), asyncio.sleep(0.1))
    if mood == "slow":
        await asyncio.sleep(0.2)
    if mood == "late":
        await asyncio.sleep(3.0)
    if mood == "straggle" and sampling.seed in {sampling_of(task, sample, 0).seed for sample in (0, 2)}:
        await asyncio.sleep(3600)
    if mood == "stubborn" and sampling.seed == sampling_of(task, 0, 0).seed:
        with contextlib.suppress(asyncio.CancelledError):  # as some user's code does
            await asyncio.sleep(3600)
    done = await single_turn(task, policy, sampling)
    if mood == "crooked":
        return Trajectory(
            done.prompt,
            done.response,
            done.tokens,
            done.action_mask,
            np.full_like(done.logprobs, np.nan),
            done.versions,
            done.finish_reason,
        )
    return done
