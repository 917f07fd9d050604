"""Defines workflows, which turn a task into a rollout.

A user's workflow is one coroutine function, named ``package.module:function`` in ``rollout.workflow``. With the
parameters (task, conversation) it adds messages, lets the policy write turns, and returns rewards or nothing; its
tokens are kept for it. With (task, policy, sampling) it handles tokens itself and returns a Trajectory: tokens that the
policy did not write (tool output, the environment's replies) have ``action_mask`` 0.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import numpy as np

from rft.config import RolloutConfig
from rft.errors import ConfigError
from rft.plugins import resolve
from rft.policy.base import Policy, Sampling
from rft.workflows.conversation import Conversation
from rft.workflows.environment import EnvironmentWorkflow
from rft.workflows.messages import chat_of
from rft.workflows.rollout import Outcome, Rollout
from rft.workflows.tools.react import ReactWorkflow
from rft.workflows.trajectory import Trajectory
from schemas.events import NOT_WRITTEN, Task

TokenWorkflow = Callable[[Task, Policy, Sampling], Awaitable[Trajectory | Rollout]]
"""Rolls out one sample of a task, token by token."""
ConversationWorkflow = Callable[[Task, Conversation], Awaitable[float | Mapping[str, float] | Outcome | None]]
"""Rolls out one sample of a task by messages. A number is the rollout's reward; a mapping holds rewards by name."""
Workflow = TokenWorkflow | ConversationWorkflow
"""An exception fails this try of this rollout and nothing else."""


async def single_turn(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    """Let the policy answer the prompt once: as plain text, or in its chat template if the task holds messages."""
    if chat_of(task):
        conversation = Conversation(task, policy, sampling)
        await conversation.generate()
        return conversation.rows()[0]
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


async def chat(task: Task, conversation: Conversation) -> None:
    """Let the policy answer the prompt once, as a user's message in the model's chat template."""
    if not conversation.messages:
        conversation.user(task.prompt)
    await conversation.generate()


NAMED: dict[str, Workflow] = {"single_turn": single_turn, "chat": chat}
StartedWorkflow = EnvironmentWorkflow | ReactWorkflow
"""Starts something of its own, such as processes or servers."""
WITH_SETTINGS: dict[str, Callable[[RolloutConfig], StartedWorkflow]] = {
    "environment": EnvironmentWorkflow,
    "react": ReactWorkflow,
}
"""Workflows that are made from the settings of ``[rollout]``."""


def open_workflow(config: RolloutConfig) -> Workflow:
    """Return the workflow of ``rollout.workflow``; :func:`close_workflow` ends what it starts.

    Raises ConfigError if there is none, or if its settings are incomplete.
    """
    made = WITH_SETTINGS.get(config.workflow)
    return find_workflow(config.workflow) if made is None else made(config)


def check_workflow(config: RolloutConfig) -> None:
    """Raise ConfigError if the workflow of ``rollout.workflow`` cannot be used: what it starts is started once."""
    workflow = open_workflow(config)
    if isinstance(workflow, StartedWorkflow):
        asyncio.run(_start_and_close(workflow))


async def _start_and_close(workflow: StartedWorkflow) -> None:
    try:
        await workflow.start()
    finally:
        await workflow.close()


async def close_workflow(workflow: Workflow) -> None:
    """End what a workflow has started, on the event loop that used it."""
    if isinstance(workflow, StartedWorkflow):
        await workflow.close()


def find_workflow(name: str) -> Workflow:
    """Return the workflow without settings that ``rollout.workflow`` names. Raises ConfigError if there is none."""
    workflow = resolve("rollout.workflow", name, {**NAMED, **WITH_SETTINGS})
    if not inspect.iscoroutinefunction(workflow):
        raise ConfigError(f"rollout.workflow = {name!r} must be an 'async def' function")
    takes_conversation(workflow)
    return cast(Workflow, workflow)


def takes_conversation(workflow: Callable[..., object]) -> bool:
    """Return whether a workflow takes (task, conversation), and not (task, policy, sampling).

    Raises ConfigError if it takes neither.
    """
    signature = inspect.signature(workflow)
    two, three = (_takes(signature, count) for count in (2, 3))
    if two or three:
        any_number = any(one.kind is one.VAR_POSITIONAL for one in signature.parameters.values())
        return two and not any_number
    raise ConfigError(
        f"the workflow {getattr(workflow, '__name__', workflow)!r} must take (task, conversation) or (task, policy, "
        f"sampling), it takes {signature}"
    )


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
