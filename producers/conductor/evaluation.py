"""Decides when held-out tasks are evaluated, and collects the results (pure).

Each held-out set is evaluated before training at the first version, after it at the final one, and, if so configured,
at every n-th version in between. A task is issued once: what is on the log counts as issued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rft.config import MAIN_SET, Config
from rft.evaluation.ids import EvalGroup, parse_group_id
from rft.tasks.ranges import RangeSet


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How much of one held-out set is evaluated, and when."""

    tasks: int
    """Held-out tasks before and after training; with 0 the set is not evaluated."""
    interim_tasks: int
    every_versions: int
    """With 0 the set is not evaluated while training."""

    def between(self, version: int) -> bool:
        """Return whether ``version`` is one of those evaluated while training."""
        return bool(self.every_versions) and version > 0 and version % self.every_versions == 0


def evaluation_plans(config: Config) -> dict[str, EvaluationPlan]:
    """Return the plan of each held-out set, by its name."""
    return {
        name: EvaluationPlan(chosen.tasks, chosen.interim_tasks, chosen.every_versions)
        for name, chosen in config.eval_sets.items()
    }


@dataclass(slots=True)
class Evaluation:
    """One set at one version: which of its tasks are issued, and which results have come."""

    issued: RangeSet = field(default_factory=RangeSet)
    results: RangeSet = field(default_factory=RangeSet)
    """Tasks whose answers have all come."""
    partial: dict[int, set[str]] = field(default_factory=dict)
    """Ids of the answers that have come, by task that awaits more."""
    answers: int = 0
    reward: float = 0.0
    """Sum over the answers."""
    unrewarded: int = 0
    """Answers to which nobody gave a reward."""

    def add(
        self, number: int, experience_id: str, reward: float | None, expected: int, *, counted: bool = True
    ) -> None:
        """Take in one of a task's ``expected`` experiences. A repeated one counts once.

        ``counted`` says whether it is an answer, or only one of the other rows of one.
        """
        if number in self.results:
            return
        seen = self.partial.setdefault(number, set())
        if experience_id in seen:
            return
        seen.add(experience_id)
        self.answers += counted
        self.reward += (reward or 0.0) * counted
        self.unrewarded += counted and reward is None
        if len(seen) >= expected:
            del self.partial[number]
            self.results.add(number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluation that is complete."""

    version: int
    tasks: int
    reward: float | None
    """Mean over the answers; a failed one counts 0. None if nobody gave any answer a reward."""
    set_name: str = MAIN_SET


class Evaluator:
    """Knows which evaluations are due, running and complete. Events may come repeatedly and in any order."""

    def __init__(self, plans: Mapping[str, EvaluationPlan]) -> None:
        self._plans = {name: plan for name, plan in plans.items() if plan.tasks}
        self._evaluations: dict[tuple[int, str], Evaluation] = {}
        self._wanted: dict[tuple[int, str], int] = {}
        """Number of tasks by version and set, of evaluations that were decided."""
        self._to_issue: set[tuple[int, str]] = set()
        self._reported: set[tuple[int, str]] = set()

    def saw_task(self, group_id: str) -> None:
        """Note that an evaluation's task is on the log."""
        group = parse_group_id(group_id)
        if group:
            self._evaluation(group.version, group.set_name).issued.add(group.number)

    def saw_result(
        self, group_id: str, experience_id: str, reward: float | None, expected: int, *, counted: bool = True
    ) -> None:
        """Note one of a held-out task's ``expected`` experiences.

        ``reward`` is 0 for a failed one, and None if nobody gave it a reward. ``counted`` says whether it is an answer,
        or only one of the other rows of one.
        """
        group = parse_group_id(group_id)
        if group:
            self._evaluation(group.version, group.set_name).add(
                group.number, experience_id, reward, expected, counted=counted
            )

    def want(self, version: int, *, whole: bool) -> None:
        """Evaluate ``version``: on all tasks of all sets if ``whole``, else on the sets and tasks of an interim one."""
        for name, plan in self._plans.items():
            if whole or plan.between(version):
                key = (version, name)
                self._wanted[key] = max(plan.tasks if whole else plan.interim_tasks, self._wanted.get(key, 0))
                self._to_issue.add(key)

    def wants_between(self, version: int) -> bool:
        """Return whether any set is evaluated at ``version`` while training."""
        return any(plan.between(version) for plan in self._plans.values())

    def first_version(self) -> int | None:
        """Return the lowest version that has tasks on the log."""
        return min((v for (v, _), evaluation in self._evaluations.items() if len(evaluation.issued)), default=None)

    def take_due(self) -> list[EvalGroup]:
        """Return the held-out tasks to issue now, and mark them as issued."""
        due = [
            EvalGroup(version, number, name)
            for version, name in sorted(self._to_issue, key=self._sort_key)
            for number in range(self._wanted[version, name])
            if self._evaluation(version, name).issued.add(number)
        ]
        self._to_issue.clear()
        return due

    def complete(self, version: int) -> bool:
        """Return whether all results of ``version`` have come; True when it has nothing to evaluate."""
        return all(self._complete(key) for key in self._wanted if key[0] == version)

    @property
    def awaits_results(self) -> bool:
        """Whether an evaluation is not complete."""
        return any(not self._complete(key) for key in self._wanted)

    @property
    def pending(self) -> set[int]:
        """Versions that lack results: some of their tasks are issued and have no result yet."""
        return {
            key[0]
            for key in self._wanted
            if not self._complete(key) and len(self._evaluation(*key).results) < len(self._evaluation(*key).issued)
        }

    def unanswered(self, version: int) -> list[str]:
        """Return the ids of the groups of ``version`` that are issued and lack answers."""
        return [
            EvalGroup(version, number, name).group_id
            for at, name in sorted(key for key in self._wanted if key[0] == version)
            for number in range(self._wanted[at, name])
            if number in (found := self._evaluation(at, name)).issued and number not in found.results
        ]

    def take_outcomes(self) -> list[Outcome]:
        """Return the evaluations that became complete since the last call."""
        unreported = [key for key in self._wanted if key not in self._reported and self._complete(key)]
        self._reported.update(unreported)
        return [self._outcome(*key) for key in unreported]

    def _outcome(self, version: int, name: str) -> Outcome:
        found = self._evaluation(version, name)
        mean = None if found.unrewarded and not found.reward else found.reward / max(1, found.answers)
        return Outcome(version, len(found.results), mean, name)

    def _complete(self, key: tuple[int, str]) -> bool:
        return self._evaluation(*key).results.first_missing() >= self._wanted[key]

    def _sort_key(self, key: tuple[int, str]) -> tuple[int, int]:
        return key[0], list(self._plans).index(key[1])

    def _evaluation(self, version: int, name: str) -> Evaluation:
        return self._evaluations.setdefault((version, name), Evaluation())
