"""Held-out accuracy of a model, in this process and without a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

from consumers.report.measures import correctness_function, is_correct
from rft.config import Config
from rft.policy.base import Policy, Sampling
from rft.policy.transformers_policy import TransformersPolicy
from rft.rewards.scorer import Scorer, make_scorer
from rft.tasks.base import TaskItem
from rft.tasks.finite import seed_of
from rft.tasks.splits import open_sources
from rft.workflows.base import Trajectory, resolve
from schemas.events import Experience, ScoredExperience, Task

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


class HeldOut:
    """The held-out tasks of a configuration, asked of one model after another."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError when tasks, workflow or rewards cannot be used."""
        self._config = config
        tasks = open_sources(config).held_out if config.eval.tasks else []
        self._items = [tasks[i] for i in range(len(tasks))]
        self._workflow = resolve(config.rollout.workflow)
        self._scorer = make_scorer(config.processor.rewards)
        self._function = correctness_function(config.processor.rewards)

    def accuracy(self, folder: Path, progress: Progress = lambda done, total: None) -> float | None:
        """Share of the ``eval.tasks`` held-out tasks that the model in ``folder`` answers right, as the report counts.

        None when ``eval.tasks`` is 0. A rollout that fails is wrong. Raises PolicyError when the model cannot be used.
        """
        if not self._items:
            return None
        settings = self._config.policy.model_copy(update={"model": str(folder)})
        policy = TransformersPolicy(settings, self._config.run.seed)
        try:
            return asyncio.run(self._ask(policy, progress))
        finally:
            policy.close()

    async def _ask(self, policy: Policy, progress: Progress) -> float:
        room = asyncio.Semaphore(self._config.rollout.max_in_flight)
        done = 0

        async def right(number: int, item: TaskItem) -> bool:
            nonlocal done
            task = _task(self._config, number, item)
            sampling = Sampling(task.max_tokens, task.temperature, seed=task.seed)
            try:
                async with room, asyncio.timeout(self._config.rollout.deadline_s):
                    trajectory = await self._workflow(task, policy, sampling)
                return is_correct(_scored(task, trajectory, self._scorer), self._function)
            # A workflow is anyone's code: whatever it raises makes this answer wrong and nothing else.
            except Exception as error:
                logger.warning("held-out task %d failed: %s: %s", number, type(error).__name__, error)
                return False
            finally:
                done += 1
                progress(done, len(self._items))

        return sum(await asyncio.gather(*(right(*pair) for pair in enumerate(self._items)))) / len(self._items)


def _task(config: Config, number: int, item: TaskItem) -> Task:
    group_id = f"replay-eval-{number:08d}"
    return Task(
        group_id=group_id,
        number=number,
        split="eval",
        source=config.tasks.eval_source or config.tasks.source,
        prompt=item.prompt,
        answer=item.answer,
        samples=1,
        max_tokens=config.rollout.max_tokens,
        temperature=config.eval.temperature,
        top_p=1.0,
        seed=seed_of("replay-eval", config.run.seed, number),
        min_version=0,
        issued_at=0,
        metadata=json.dumps(item.metadata),
    )


def _scored(task: Task, trajectory: Trajectory, scorer: Scorer) -> ScoredExperience:
    experience = Experience(
        experience_id=f"{task.group_id}/0",
        group_id=task.group_id,
        number=task.number,
        sample=0,
        split=task.split,
        group_size=1,
        prompt=trajectory.prompt,
        response=trajectory.response,
        answer=task.answer,
        created_at=0,
        source="replay",
        model="",
        tokens=trajectory.tokens,
        action_mask=trajectory.action_mask,
        logprobs=trajectory.logprobs,
        versions=trajectory.versions,
        temperature=task.temperature,
        finish_reason=trajectory.finish_reason,
        metadata=task.metadata,
    )
    reward, rewards = scorer(experience)
    return ScoredExperience(
        experience=experience,
        origin_partition=0,
        origin_offset=0,
        verdict="train",
        cause=None,
        reward=reward,
        rewards=rewards,
        priority=0.0,
        release_id="",
        release_size=1,
        scored_at=0,
    )
