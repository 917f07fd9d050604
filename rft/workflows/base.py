"""Defines workflows, which turn a task into a trajectory.

A user's workflow is one coroutine function with the signature of :data:`Workflow`, named ``package.module:function`` in
``rollout.workflow``. It may generate several times. Tokens that the policy did not write (tool output, the
environment's replies) go into the trajectory with ``action_mask`` 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from rft.errors import ConfigError
from rft.plugins import resolve
from rft.policy.base import Policy, Sampling
from schemas.events import NOT_WRITTEN, LogprobArray, MaskArray, Task, TokenArray


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The result of one rollout. Arrays have one element a token, prompt included (length T)."""

    prompt: str
    response: str
    tokens: TokenArray
    """int32 [T]"""
    action_mask: MaskArray
    """uint8 [T]: 1 where the policy wrote the token."""
    logprobs: LogprobArray
    """float32 [T]: 0 where ``action_mask`` is 0."""
    versions: TokenArray
    """int32 [T]: -1 where ``action_mask`` is 0."""
    finish_reason: str
    """``stop`` or ``length``."""


Workflow = Callable[[Task, Policy, Sampling], Awaitable[Trajectory]]
"""Rolls out one sample of a task. An exception fails this try of this rollout and nothing else."""


async def single_turn(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    """Let the policy answer the prompt once."""
    prompt = np.asarray(policy.encode(task.prompt), dtype=np.int32)
    written = await policy.generate(prompt.tolist(), sampling)
    return Trajectory(
        prompt=task.prompt,
        response=policy.decode(written.tokens.tolist()),
        tokens=np.concatenate([prompt, written.tokens]),
        action_mask=np.repeat(np.array([0, 1], np.uint8), [prompt.size, written.tokens.size]),
        logprobs=np.concatenate([np.zeros(prompt.size, np.float32), written.logprobs]),
        versions=np.concatenate([np.full(prompt.size, NOT_WRITTEN, np.int32), written.versions]),
        finish_reason=written.finish_reason,
    )


NAMED: dict[str, Workflow] = {"single_turn": single_turn}


def find_workflow(name: str) -> Workflow:
    """Return the workflow that ``rollout.workflow`` names. Raises ConfigError if there is none."""
    workflow = resolve("rollout.workflow", name, NAMED)
    if not inspect.iscoroutinefunction(workflow):
        raise ConfigError(f"rollout.workflow = {name!r} must be an 'async def' function")
    return workflow
