"""The answers of one evaluation as they come, and what they amount to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft.config import EvalSet
from rft.evaluation.difficulty import Classes
from rft.evaluation.estimators import pass_at_k, standard_error


@dataclass(slots=True)
class TaskAnswers:
    """The answers to one task by experience id: whether each is right, and its reward."""

    right: dict[str, bool] = field(default_factory=dict)
    reward: dict[str, float] = field(default_factory=dict)
    expected: int = 1
    """Answers that its group was released with."""

    @property
    def share(self) -> float:
        """Of right answers."""
        return sum(self.right.values()) / len(self.right)

    @property
    def whole(self) -> bool:
        return len(self.right) >= self.expected


@dataclass(slots=True)
class Tally:
    """One set evaluated at one weight version. An answer that is told twice counts once."""

    tasks: dict[int, TaskAnswers] = field(default_factory=dict)
    """By the task's number."""
    metadata: dict[int, str] = field(default_factory=dict)
    """JSON of each task."""

    def add(
        self, number: int, experience_id: str, *, right: bool, reward: float, expected: int = 1, metadata: str = "{}"
    ) -> None:
        """Take in one answer. ``expected``: answers that its group has in all."""
        answers = self.tasks.setdefault(number, TaskAnswers())
        answers.expected = max(answers.expected, expected)
        answers.right[experience_id] = right
        answers.reward[experience_id] = reward
        self.metadata.setdefault(number, metadata)

    @property
    def answered(self) -> int:
        """Tasks whose answers have all come."""
        return sum(answers.whole for answers in self.tasks.values())

    @property
    def accuracy(self) -> float:
        """Mean over tasks of the share of right answers; 0 without any."""
        return sum(answers.share for answers in self.tasks.values()) / len(self.tasks) if self.tasks else 0.0

    def shares(self) -> dict[int, float]:
        """Share of right answers by task."""
        return {number: answers.share for number, answers in sorted(self.tasks.items())}

    def result(self, chosen: EvalSet, classes: Classes) -> dict[str, Any]:
        """The numbers for ``report.json`` and trackers: ``mean_at`` and ``pass_at`` have the k as text.

        mean@k is the mean over the first k answers of each task (its samples are alike, so it tells how a smaller k
        would have looked); ``accuracy`` is mean@n over all n. A task with fewer than k answers plays no part in
        pass@k and mean@k.
        """
        by_class: dict[str, list[int]] = {}
        for number in self.tasks:
            by_class.setdefault(classes.of(number, self.metadata[number]), []).append(number)
        return {
            **self._numbers(list(self.tasks), chosen.pass_at),
            "by_difficulty": {
                name: self._numbers(by_class[name], chosen.pass_at) for name in sorted(by_class, key=classes.order)
            },
        }

    def _numbers(self, numbers: list[int], ks: tuple[int, ...]) -> dict[str, Any]:
        tasks = [self.tasks[number] for number in numbers]
        shares = [answers.share for answers in tasks]
        rewards = [value for answers in tasks for value in answers.reward.values()]
        return {
            "tasks": len(tasks),
            "answers": len(rewards),
            "accuracy": _mean(shares),
            "standard_error": round(standard_error(shares), 5),
            "reward": _mean(rewards),
            "mean_at": _by_k(tasks, ks, mean_at),
            "pass_at": _by_k(
                tasks, ks, lambda answers, k: pass_at_k(len(answers.right), sum(answers.right.values()), k)
            ),
        }


def classes_of(chosen: EvalSet, tallies: Sequence[Tally]) -> Classes:
    """The difficulty classes of a set, from all its evaluations, first to last."""
    if chosen.difficulty is None:
        return Classes.from_first_evaluation(tallies[0].shares() if tallies else {})
    return Classes.from_metadata(chosen.difficulty, [text for tally in tallies for text in tally.metadata.values()])


def mean_at(answers: TaskAnswers, k: int) -> float:
    """Share of right ones among the first ``k`` answers, in order of their ids."""
    return sum(right for _, right in sorted(answers.right.items())[:k]) / k


def _by_k(tasks: list[TaskAnswers], ks: tuple[int, ...], estimate: Any) -> Mapping[str, float]:
    found = {}
    for k in ks:
        able = [answers for answers in tasks if len(answers.right) >= k]
        if able:
            found[str(k)] = _mean([estimate(answers, k) for answers in able])
    return found


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 5) if values else 0.0
