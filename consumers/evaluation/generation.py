"""The held-out sets of a configuration, asked of one model after another, in this process and without a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from consumers.report.measures import correctness_function, is_correct
from rft.config import Config, EvalSet
from rft.evaluation.tally import Tally
from rft.policy.base import Policy, Sampling
from rft.policy.opening import open_policy
from rft.rewards.scorer import Scorer, make_scorer
from rft.tasks.base import TaskItem
from rft.tasks.finite import seed_of
from rft.tasks.splits import open_sources
from rft.workflows.base import Trajectory, resolve
from rft.workflows.experiences import rolled_out
from schemas.events import ScoredExperience, Task

Progress = Callable[[int, int], None]
"""Told (done, total) after each answer."""

logger = logging.getLogger(__name__)


class HeldOut:
    """Held-out sets and how they are judged."""

    def __init__(self, config: Config, names: Sequence[str] | None = None) -> None:
        """``names``: of the sets to ask, by default all. Raises ConfigError when tasks, workflow or rewards cannot be
        used.
        """
        self._config = config
        self.sets = {name: chosen for name, chosen in config.eval_sets.items() if names is None or name in names}
        splits = open_sources(config).sets if self.sets else {}
        self._items = {name: [splits[name][i] for i in range(len(splits[name]))] for name in self.sets}
        self._workflow = resolve(config.rollout.workflow)
        self._scorer = make_scorer(config.processor.rewards)
        self._function = correctness_function(config.processor.rewards)

    def accuracy(self, folder: Path, progress: Progress = lambda done, total: None) -> float | None:
        """Share of right answers to the first set of the model in ``folder``, as the report counts.

        None when there is no set. Raises PolicyError when the model cannot be used.
        """
        return next((tally.accuracy for tally in self.tallies(folder, progress, first_only=True).values()), None)

    def tallies(
        self, folder: Path, progress: Progress = lambda done, total: None, *, first_only: bool = False
    ) -> dict[str, Tally]:
        """All answers of the model in ``folder``, by set. A rollout that fails is wrong.

        The same model gives the same answers, up to the rounding of differently composed batches. Raises PolicyError
        when the model cannot be used.
        """
        chosen = list(self.sets.values())[: 1 if first_only else None]
        if not chosen:
            return {}
        settings = self._config.policy.model_copy(update={"model": str(folder)})
        if settings.engine == "openai":  # a server cannot be given a folder's weights
            settings = settings.model_copy(update={"engine": "transformers"})
        policy = open_policy(self._config.model_copy(update={"policy": settings}))
        try:
            return asyncio.run(self._ask(policy, chosen, progress))
        finally:
            policy.close()

    async def _ask(self, policy: Policy, chosen: Sequence[EvalSet], progress: Progress) -> dict[str, Tally]:
        room = asyncio.Semaphore(self._config.rollout.max_in_flight)
        total = sum(len(self._items[one.name]) * one.samples for one in chosen)
        tallies = {one.name: Tally() for one in chosen}
        done = 0

        async def answer(one: EvalSet, number: int, item: TaskItem, sample: int) -> None:
            nonlocal done
            task = self._task(one, number, item)
            right, reward = False, 0.0
            sampling = Sampling(task.max_tokens, task.temperature, task.top_p, seed_of("eval", task.seed, sample))
            try:
                async with room, asyncio.timeout(self._config.rollout.deadline_s):
                    trajectory = await self._workflow(task, policy, sampling)
                scored = _scored(task, sample, trajectory, self._scorer)
                right, reward = is_correct(scored, self._function), scored.reward
            # A workflow is anyone's code: whatever it raises makes this answer wrong and nothing else.
            except Exception as error:
                logger.warning("%s: task %d failed: %s: %s", one.title, number, type(error).__name__, error)
            tallies[one.name].add(
                number,
                f"{task.group_id}/{sample:04d}",
                right=right,
                reward=reward,
                expected=one.samples,
                metadata=task.metadata,
            )
            done += 1
            progress(done, total)

        await asyncio.gather(
            *(
                answer(one, number, item, sample)
                for one in chosen
                for number, item in enumerate(self._items[one.name])
                for sample in range(one.samples)
            )
        )
        return tallies

    def _task(self, one: EvalSet, number: int, item: TaskItem) -> Task:
        return Task(
            group_id=f"bench-{one.name}-{number:08d}",
            number=number,
            split="eval",
            source=one.source,
            prompt=item.prompt,
            answer=item.answer,
            samples=one.samples,
            max_tokens=one.max_tokens,
            temperature=one.temperature,
            top_p=one.top_p,
            seed=seed_of("eval-task", self._config.run.seed, one.name, number),
            min_version=0,
            issued_at=0,
            metadata=json.dumps(item.metadata),
        )


def _scored(task: Task, sample: int, trajectory: Trajectory, scorer: Scorer) -> ScoredExperience:
    experience = rolled_out(task, sample, trajectory, source="bench", model="", now_ms=0, duration_ms=0)
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
