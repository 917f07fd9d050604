"""The workflow ``environment``: the policy plays an episode of ``rollout.environment``.

Observations are the messages of the user, turns are the actions. Rewards of steps are the rewards of the turns, and
their sum is the rollout's. All samples of a task play with the same seed, so that their rewards compare.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from rft.config import RolloutConfig
from rft.environments.base import MAX_SEED, SEED, SUCCESS
from rft.environments.pool import EnvironmentPool, StepReply
from rft.errors import ConfigError, RolloutError, TokenBudgetError
from rft.workflows.conversation import Conversation
from rft.workflows.rollout import Outcome
from schemas.events import Task


class EnvironmentWorkflow:
    """Plays episodes. Its processes start with the first one; close it on the event loop that used it."""

    def __init__(self, config: RolloutConfig) -> None:
        """Raises ConfigError if no environment is set."""
        if config.environment is None:
            raise ConfigError('rollout.workflow = "environment" needs rollout.environment, see docs/environments.md')
        self._config = config
        self._pattern = re.compile(config.environment_action) if config.environment_action else None
        self._pool: EnvironmentPool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, task: Task, conversation: Conversation) -> Outcome:
        """Play one episode. Raises RolloutError if the environment fails."""
        given = {"prompt": task.prompt, "answer": task.answer, "metadata": json.loads(task.metadata)}
        seed = _seed(task, given["metadata"])
        rewards: dict[int, float] = {}
        last: StepReply | None = None
        ended = "max_turns"
        async with self._open_pool().episode(seed, given) as episode:
            conversation.add(*episode.messages)
            for _ in range(self._config.environment_max_turns):
                try:
                    turn = await conversation.generate(max_tokens=self._config.environment_turn_tokens)
                except TokenBudgetError:
                    if last is None:
                        raise
                    ended = "max_tokens"
                    break
                last = await episode.step(self._action(turn.content))
                if last.reward is not None:
                    rewards[turn.index] = last.reward
                if last.done:
                    ended = "done"
                    break
                conversation.add(*last.messages)
        assert last is not None
        return _outcome(seed, rewards, last, len(conversation.turns), ended)

    async def start(self) -> None:
        """Start a process. Raises ConfigError if the environment cannot be made."""
        await self._open_pool().start()

    async def close(self) -> None:
        """End all processes."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _open_pool(self) -> EnvironmentPool:
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool, self._loop = EnvironmentPool(self._config), loop
        assert self._loop is loop, "a workflow is used on one event loop"
        return self._pool

    def _action(self, text: str) -> str:
        found = list(self._pattern.finditer(text)) if self._pattern else []
        if not found:
            return text
        assert self._pattern is not None
        return str(found[-1].group(1 if self._pattern.groups else 0) or "")


def _seed(task: Task, metadata: dict[str, Any]) -> int:
    seed = metadata.get(SEED, task.seed & MAX_SEED)
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise RolloutError(f"the task's metadata {SEED} is {seed!r:.80}, it must be a whole number, 0 to {MAX_SEED}")
    return seed


def _outcome(seed: int, rewards: dict[int, float], last: StepReply, turns: int, ended: str) -> Outcome:
    """Return the outcome of an episode. One that was cut short is no success."""
    success = last.success if last.done else 0.0
    about: dict[str, Any] = {"seed": seed, "steps": turns, "ended": ended, "info": last.info}
    total = sum(rewards.values())
    # Rewards by turn come in addition to the rollout's own, which its last turn earns.
    by_turn = {**rewards, turns - 1: rewards.get(turns - 1, 0.0) - total} if rewards else {}
    return Outcome(
        reward=total,
        rewards={} if success is None else {SUCCESS: success},
        turn_rewards=by_turn,
        metadata={"environment": {**about, SUCCESS: success}},
    )
