"""When held-out tasks are evaluated, and what came of it (pure).

Before training at the first version, after it at the final one, and, when asked, at every n-th version in
between; each held-out set at its own pace. A task is issued once: what is in the log counts as issued, whoever issued
it.
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
    """Held-out tasks before and after training; 0: no evaluation."""
    interim_tasks: int
    every_versions: int
    """0: not between."""

    def between(self, version: int) -> bool:
        """Whether ``version`` is one of those evaluated while training."""
        return bool(self.every_versions) and version > 0 and version % self.every_versions == 0


def plans_of(config: Config) -> dict[str, EvaluationPlan]:
    """By set."""
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
    """Ids of the answers that have come, of tasks that await more."""
    answers: int = 0
    reward: float = 0.0
    """Sum over the answers."""

    def add(self, number: int, experience_id: str, reward: float, expected: int) -> None:
        """Take in one answer of ``expected`` ones; one that is told twice counts once."""
        if number in self.results:
            return
        seen = self.partial.setdefault(number, set())
        if experience_id in seen:
            return
        seen.add(experience_id)
        self.answers += 1
        self.reward += reward
        if len(seen) >= expected:
            del self.partial[number]
            self.results.add(number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluation that is complete."""

    version: int
    tasks: int
    reward: float
    """Mean over the answers; one that failed counts 0."""
    set_name: str = MAIN_SET


class Evaluator:
    """Which evaluations are due, running and complete. Everything may be told twice and in any order."""

    def __init__(self, plans: Mapping[str, EvaluationPlan]) -> None:
        self._plans = {name: plan for name, plan in plans.items() if plan.tasks}
        self._evaluations: dict[tuple[int, str], Evaluation] = {}
        self._wanted: dict[tuple[int, str], int] = {}
        """Tasks by version and set, for evaluations decided on."""
        self._to_issue: set[tuple[int, str]] = set()
        self._reported: set[tuple[int, str]] = set()

    def saw_task(self, group_id: str) -> None:
        """An evaluation's task is in the log."""
        group = parse_group_id(group_id)
        if group:
            self._of(group.version, group.set_name).issued.add(group.number)

    def saw_result(self, group_id: str, experience_id: str, reward: float, expected: int) -> None:
        """One of a held-out task's ``expected`` answers has come; ``reward`` is 0 for one that failed."""
        group = parse_group_id(group_id)
        if group:
            self._of(group.version, group.set_name).add(group.number, experience_id, reward, expected)

    def want(self, version: int, *, whole: bool) -> None:
        """Evaluate ``version``: on all tasks of all sets if ``whole``, else as in between and on the sets due then."""
        for name, plan in self._plans.items():
            if whole or plan.between(version):
                key = (version, name)
                self._wanted[key] = max(plan.tasks if whole else plan.interim_tasks, self._wanted.get(key, 0))
                self._to_issue.add(key)

    def wants_between(self, version: int) -> bool:
        """Whether ``version`` is one of those evaluated while training, by any set."""
        return any(plan.between(version) for plan in self._plans.values())

    def first_version(self) -> int | None:
        """The lowest version that has tasks in the log."""
        return min((v for (v, _), evaluation in self._evaluations.items() if len(evaluation.issued)), default=None)

    def due(self) -> list[EvalGroup]:
        """Held-out tasks to issue now, and marks them as issued."""
        orders = [
            EvalGroup(version, number, name)
            for version, name in sorted(self._to_issue, key=self._order)
            for number in range(self._wanted[version, name])
            if self._of(version, name).issued.add(number)
        ]
        self._to_issue.clear()
        return orders

    def complete(self, version: int) -> bool:
        """Whether all results of ``version`` have come; True when it has nothing to evaluate."""
        return all(self._complete(key) for key in self._wanted if key[0] == version)

    @property
    def awaits_results(self) -> bool:
        """Whether an evaluation is under way."""
        return any(not self._complete(key) for key in self._wanted)

    @property
    def pending(self) -> set[int]:
        """Versions whose evaluation is under way: some of its tasks are issued and have no result yet."""
        return {
            key[0]
            for key in self._wanted
            if not self._complete(key) and len(self._of(*key).results) < len(self._of(*key).issued)
        }

    def news(self) -> list[Outcome]:
        """Evaluations that became complete since the last call."""
        fresh = [key for key in self._wanted if key not in self._reported and self._complete(key)]
        self._reported.update(fresh)
        return [self._outcome(*key) for key in fresh]

    def _outcome(self, version: int, name: str) -> Outcome:
        found = self._of(version, name)
        return Outcome(version, len(found.results), found.reward / max(1, found.answers), name)

    def _complete(self, key: tuple[int, str]) -> bool:
        return self._of(*key).results.first_missing() >= self._wanted[key]

    def _order(self, key: tuple[int, str]) -> tuple[int, int]:
        return key[0], list(self._plans).index(key[1])

    def _of(self, version: int, name: str) -> Evaluation:
        return self._evaluations.setdefault((version, name), Evaluation())
