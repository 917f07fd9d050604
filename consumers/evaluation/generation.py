"""Generates and scores one model's answers to the held-out sets, in this process and without a log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from consumers.evaluation import Progress
from consumers.report.measures import correctness_function, is_correct
from rft.config import Config, EvalSet
from rft.evaluation.tally import Tally, lacks_reward
from rft.plugins import USER_FAILURES
from rft.policy import open_policy
from rft.policy.base import Policy, Sampling
from rft.rewards.isolation import open_scorer
from rft.rewards.scorer import Scorer
from rft.stream.pending_sample import score
from rft.tasks.base import TaskItem
from rft.tasks.chat import task_metadata
from rft.tasks.finite import seed_of
from rft.tasks.splits import open_sources
from rft.workflows.base import close_workflow, open_workflow
from rft.workflows.deadline import run_within
from rft.workflows.experiences import make_experiences
from rft.workflows.rollout import Rollout
from rft.workflows.running import run_workflow
from schemas.events import ScoredExperience, Task

logger = logging.getLogger(__name__)


class HeldOutEvaluator:
    """Evaluates one model after another on the held-out sets of a configuration."""

    def __init__(self, config: Config, names: Sequence[str] | None = None) -> None:
        """Open the sets ``names``, by default all. Raises ConfigError if tasks, workflow or rewards cannot be used."""
        self._config = config
        agents = config.rollout.agent or config.rollout.command  # explorers serve the policy to them, nobody else
        sets = {} if agents else config.eval_sets
        self.sets = {name: each for name, each in sets.items() if names is None or name in names}
        splits = open_sources(config).sets if self.sets else {}
        self._items = {name: [splits[name][i] for i in range(len(splits[name]))] for name in self.sets}
        open_workflow(config.rollout)  # an unknown workflow is reported now
        self._scorer = open_scorer(config.processor)
        self._function = correctness_function(config.processor.rewards)

    def accuracy(self, folder: Path, progress: Progress = lambda done, total: None) -> float | None:
        """Return the share of correct answers of the model in ``folder`` to the first set, as the report counts.

        Returns None if there is no set, or if rewards outside 0 to 1 decide about its answers.
        Raises PolicyError if the model cannot be used.
        """
        return next((tally.accuracy for tally in self.tallies(folder, progress, first_only=True).values()), None)

    def tallies(
        self, folder: Path, progress: Progress = lambda done, total: None, *, first_only: bool = False
    ) -> dict[str, Tally]:
        """Return all answers of the model in ``folder``, by set. A failed rollout is a wrong answer.

        The same model gives the same answers, up to the rounding of differently composed batches. ``progress`` counts
        answers. Raises PolicyError if the model cannot be used.
        """
        eval_sets = list(self.sets.values())[: 1 if first_only else None]
        if not eval_sets:
            return {}
        settings = self._config.policy.model_copy(update={"model": str(folder)})
        if settings.engine == "openai":  # a server cannot be given a folder's weights
            settings = settings.model_copy(update={"engine": "transformers"})
        policy = open_policy(self._config.model_copy(update={"policy": settings}))
        try:
            return asyncio.run(self._generate(policy, eval_sets, progress))
        finally:
            policy.close()

    async def _generate(self, policy: Policy, eval_sets: Sequence[EvalSet], progress: Progress) -> dict[str, Tally]:
        workflow = open_workflow(self._config.rollout)
        in_flight = asyncio.Semaphore(self._config.rollout.max_in_flight)
        total = sum(len(self._items[eval_set.name]) * eval_set.samples for eval_set in eval_sets)
        tallies = {eval_set.name: Tally() for eval_set in eval_sets}
        done = 0

        async def answer(eval_set: EvalSet, number: int, item: TaskItem, sample: int) -> None:
            nonlocal done
            task = self._task(eval_set, number, item)
            correct, reward, unrewarded = False, 0.0, False
            sampling = Sampling(task.max_tokens, task.temperature, task.top_p, seed_of("eval", task.seed, sample))
            try:
                async with in_flight:
                    work = run_workflow(workflow, task, policy, sampling)
                    rollout = await run_within(work, self._config.rollout.deadline_s)
                scored = _scored(task, sample, rollout, self._scorer)
                correct, reward = is_correct(scored, self._function), scored.reward
                unrewarded = lacks_reward(scored)
            # A workflow is foreign code: an error of it makes this answer wrong and nothing else.
            except USER_FAILURES as error:
                logger.warning("%s: task %d failed: %s: %s", eval_set.title, number, type(error).__name__, error)
            tallies[eval_set.name].add(
                number,
                f"{task.group_id}/{sample:04d}",
                right=correct,
                reward=reward,
                expected=eval_set.samples,
                metadata=task.metadata,
                unrewarded=unrewarded,
            )
            done += 1
            progress(done, total)

        try:
            await asyncio.gather(
                *(
                    answer(eval_set, number, item, sample)
                    for eval_set in eval_sets
                    for number, item in enumerate(self._items[eval_set.name])
                    for sample in range(eval_set.samples)
                )
            )
        finally:
            await close_workflow(workflow)
        return tallies

    def _task(self, eval_set: EvalSet, number: int, item: TaskItem) -> Task:
        return Task(
            group_id=f"bench-{eval_set.name}-{number:08d}",
            number=number,
            split="eval",
            source=eval_set.source,
            prompt=item.prompt,
            answer=item.answer,
            samples=eval_set.samples,
            max_tokens=eval_set.max_tokens,
            temperature=eval_set.temperature,
            top_p=eval_set.top_p,
            seed=seed_of("eval-task", self._config.run.seed, eval_set.name, number),
            min_version=0,
            issued_at=0,
            metadata=task_metadata(self._config.tasks, item),
        )


def _scored(task: Task, sample: int, rollout: Rollout, scorer: Scorer) -> ScoredExperience:
    # The last row is the one that is scored.
    *_, experience = make_experiences(task, sample, rollout, source="bench", model="", now_ms=0, duration_ms=0)
    reward, rewards = score(experience, scorer)
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
