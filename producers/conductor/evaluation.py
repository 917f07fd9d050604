"""When held-out tasks are evaluated, and what came of it (pure).

Before training at the first version, after it at the final one, and, when asked, at every n-th version in
between. A task is issued once: what is in the log counts as issued, whoever issued it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft.config import Config
from rft.tasks.ranges import RangeSet

PREFIX = "eval-"


def group_id_of(version: int, number: int) -> str:
    """Group id of held-out task ``number`` evaluated at weight version ``version``."""
    return f"{PREFIX}{version:08d}-{number:08d}"


def parse_group_id(group_id: str) -> tuple[int, int] | None:
    """(version, number) of an evaluation's group id; None for any other."""
    if not group_id.startswith(PREFIX):
        return None
    version, _, number = group_id.removeprefix(PREFIX).partition("-")
    return (int(version), int(number)) if version.isdecimal() and number.isdecimal() else None


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How much is evaluated, and when."""

    tasks: int
    """Held-out tasks before and after training; 0: no evaluation."""
    interim_tasks: int
    every_versions: int
    """0: not between."""

    @classmethod
    def of(cls, config: Config) -> EvaluationPlan:
        evaluation = config.eval
        return cls(evaluation.tasks, min(evaluation.interim_tasks, evaluation.tasks), evaluation.every_versions)


@dataclass(slots=True)
class Evaluation:
    """One evaluation: which of its tasks are issued, and which results have come."""

    version: int
    issued: RangeSet
    results: RangeSet
    reward: float = 0.0
    """Sum over the results."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluation that is complete."""

    version: int
    tasks: int
    reward: float
    """Mean over the tasks; one that failed counts 0."""


class Evaluator:
    """Which evaluations are due, running and complete. Everything may be told twice and in any order."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self._plan = plan
        self._evaluations: dict[int, Evaluation] = {}
        self._wanted: dict[int, int] = {}
        """Tasks by version, for evaluations decided on."""
        self._to_issue: set[int] = set()
        self._reported: set[int] = set()

    def saw_task(self, group_id: str) -> None:
        """An evaluation's task is in the log."""
        parsed = parse_group_id(group_id)
        if parsed:
            self._of(parsed[0]).issued.add(parsed[1])

    def saw_result(self, group_id: str, reward: float) -> None:
        """A held-out task's result has come; ``reward`` is 0 for one that failed."""
        parsed = parse_group_id(group_id)
        if parsed:
            evaluation = self._of(parsed[0])
            if evaluation.results.add(parsed[1]):
                evaluation.reward += reward

    def want(self, version: int, *, whole: bool) -> None:
        """Evaluate ``version``: on all tasks if ``whole``, else on those of an evaluation in between."""
        tasks = self._plan.tasks if whole else self._plan.interim_tasks
        if tasks:
            self._wanted[version] = max(tasks, self._wanted.get(version, 0))
            self._to_issue.add(version)

    def wants_between(self, version: int) -> bool:
        """Whether ``version`` is one of those evaluated while training."""
        return bool(self._plan.every_versions) and version > 0 and version % self._plan.every_versions == 0

    def first_version(self) -> int | None:
        """The lowest version that has tasks in the log."""
        return min((v for v, evaluation in self._evaluations.items() if len(evaluation.issued)), default=None)

    def due(self) -> list[tuple[int, int]]:
        """Held-out tasks to issue now, as (version, number), and marks them as issued."""
        orders = [
            (version, number)
            for version in sorted(self._to_issue)
            for number in range(self._wanted[version])
            if self._of(version).issued.add(number)
        ]
        self._to_issue.clear()
        return orders

    def complete(self, version: int) -> bool:
        """Whether all results of ``version`` have come; True when it has nothing to evaluate."""
        return self._of(version).results.first_missing() >= self._wanted.get(version, 0)

    @property
    def awaits_results(self) -> bool:
        """Whether an evaluation is under way."""
        return any(not self.complete(version) for version in self._wanted)

    def news(self) -> list[Outcome]:
        """Evaluations that became complete since the last call."""
        fresh = [v for v in self._wanted if v not in self._reported and self.complete(v)]
        self._reported.update(fresh)
        return [
            Outcome(v, len(self._of(v).results), self._of(v).reward / max(1, len(self._of(v).results))) for v in fresh
        ]

    def _of(self, version: int) -> Evaluation:
        return self._evaluations.setdefault(version, Evaluation(version, RangeSet(), RangeSet()))
