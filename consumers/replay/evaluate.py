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


def held_out_accuracy(config: Config, folder: Path, progress: Progress = lambda done, total: None) -> float | None:
    """Share of the ``eval.tasks`` held-out tasks that the model in ``folder`` answers right, as the report counts it.

    None when ``eval.tasks`` is 0. A rollout that fails is wrong. Raises PolicyError when the model cannot be used.
    """
    if not config.eval.tasks:
        return None
    items = open_sources(config).held_out
    policy = TransformersPolicy(config.policy.model_copy(update={"model": str(folder)}), config.run.seed)
    try:
        return asyncio.run(_evaluate(config, policy, [items[i] for i in range(len(items))], progress))
    finally:
        policy.close()


async def _evaluate(config: Config, policy: Policy, items: list[TaskItem], progress: Progress) -> float:
    workflow, scorer = resolve(config.rollout.workflow), make_scorer(config.processor.rewards)
    function = correctness_function(config.processor.rewards)
    room = asyncio.Semaphore(config.rollout.max_in_flight)
    done = 0

    async def right(number: int, item: TaskItem) -> bool:
        nonlocal done
        task = _task(config, number, item)
        try:
            async with room, asyncio.timeout(config.rollout.deadline_s):
                trajectory = await workflow(task, policy, Sampling(task.max_tokens, task.temperature, seed=task.seed))
            return is_correct(_scored(task, trajectory, scorer), function)
        # A workflow is anyone's code: whatever it raises makes this answer wrong and nothing else.
        except Exception as error:
            logger.warning("held-out task %d failed: %s: %s", number, type(error).__name__, error)
            return False
        finally:
            done += 1
            progress(done, len(items))

    return sum(await asyncio.gather(*(right(*pair) for pair in enumerate(items)))) / len(items)


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
