"""Collects the answers of one evaluation as they arrive and computes its numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft.config import EvalSet
from rft.evaluation.difficulty import DifficultyClasses
from rft.evaluation.estimators import pass_at_k, standard_error
from schemas.events import ScoredExperience

_ROWS_MISSING = "rows_missing"
"""As in :mod:`rft.stream.sample_rows`, which is on a higher floor."""


def is_answer(scored: ScoredExperience) -> bool:
    """Return whether an event stands for its sample: it is the last of its rows, and none is missing."""
    return scored.experience.row == scored.experience.rows - 1 and scored.cause != _ROWS_MISSING


def lacks_reward(answer: ScoredExperience) -> bool:
    """Return whether nobody gave a usable answer a reward: no reward function, and not its producer."""
    return answer.cause is None and not answer.rewards and not answer.reward


@dataclass(slots=True)
class TaskAnswers:
    """The answers to one task."""

    arrived: set[str] = field(default_factory=set)
    """Experience ids of all rows of all answers."""
    right: dict[str, bool] = field(default_factory=dict)
    """Whether each answer is right, by experience id."""
    reward: dict[str, float] = field(default_factory=dict)
    """Reward of each answer, by experience id."""
    expected: int = 1
    """Number of experiences that the group was released with."""

    @property
    def share(self) -> float:
        """Share of right answers; 0 without any."""
        return sum(self.right.values()) / max(len(self.right), 1)

    @property
    def whole(self) -> bool:
        """True when all answers have arrived."""
        return len(self.arrived) >= self.expected


@dataclass(slots=True)
class Tally:
    """One set evaluated at one weight version. An answer that arrives twice counts once."""

    tasks: dict[int, TaskAnswers] = field(default_factory=dict)
    """By the task's number."""
    metadata: dict[int, str] = field(default_factory=dict)
    """JSON of each task."""
    unrewarded: int = 0
    """Answers to which nobody gave a reward, no function and no producer."""
    bounded: bool = True
    """Whether all rewards that decide about answers lie between 0 and 1. Otherwise no answer is right or wrong, and
    only the mean reward says how good they are."""

    def add(
        self,
        number: int,
        experience_id: str,
        *,
        right: bool,
        reward: float,
        expected: int = 1,
        metadata: str = "{}",
        unrewarded: bool = False,
        counted: bool = True,
        bounded: bool = True,
    ) -> None:
        """Take in one experience.

        Args:
            expected: Number of experiences in its group.
            counted: It is an answer, not one of the other rows of one (:func:`is_answer`).
            bounded: The reward that decides about it lies between 0 and 1.
        """
        answers = self.tasks.setdefault(number, TaskAnswers())
        answers.expected = max(answers.expected, expected)
        answers.arrived.add(experience_id)
        self.metadata.setdefault(number, metadata)
        if not counted:
            return
        self.unrewarded += unrewarded
        self.bounded = self.bounded and bounded
        answers.right[experience_id] = right
        answers.reward[experience_id] = reward

    @property
    def answered(self) -> int:
        """Number of tasks whose answers have all arrived."""
        return sum(answers.whole for answers in self.tasks.values())

    @property
    def scored(self) -> bool:
        """False if nobody gave any answer a reward: then it is not known which ones are right."""
        return not self.unrewarded or any(any(answers.reward.values()) for answers in self.tasks.values())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, averaged over tasks; 0 without any, None if not scored or not ``bounded``."""
        if not self.scored or not self.bounded:
            return None
        return sum(answers.share for answers in self.tasks.values()) / len(self.tasks) if self.tasks else 0.0

    @property
    def mean_reward(self) -> float | None:
        """Mean reward of the answers, averaged over tasks; 0 without any, None if they are not scored."""
        if not self.scored:
            return None
        means = self.task_scores(share=False)
        return sum(means.values()) / len(means) if means else 0.0

    def task_scores(self, *, share: bool) -> dict[int, float]:
        """Return the share of right answers by task number, or the mean reward unless ``share``."""
        if share:
            return self.shares()
        return {number: _mean(list(answers.reward.values())) for number, answers in sorted(self.tasks.items())}

    def shares(self) -> dict[int, float]:
        """Return the share of right answers by task number."""
        return {number: answers.share for number, answers in sorted(self.tasks.items())}

    def result(self, eval_set: EvalSet, classes: DifficultyClasses) -> dict[str, Any]:
        """Return the numbers for ``report.json`` and trackers. The keys of ``mean_at`` and ``pass_at`` are k as text.

        mean@k is the mean over the first k answers of each task. All samples of a task are alike, so it shows what a
        smaller k would have given. ``accuracy`` is mean@n over all n answers. Tasks with fewer than k answers do not
        count in pass@k and mean@k. Where nothing is scored, there are only the counts.

        ``measure`` is ``mean reward`` if rewards outside 0 to 1 decide about answers: then nothing is called right, and
        ``standard_error`` is that of the mean reward.
        """
        if not self.scored:
            answers = sum(len(one.right) for one in self.tasks.values())
            unknown = dict.fromkeys(("accuracy", "standard_error", "reward"))
            counts = {"scored": False, "measure": "accuracy", "tasks": len(self.tasks), "answers": answers}
            return {**counts, **unknown, "mean_at": {}, "pass_at": {}, "by_difficulty": {}}
        by_class: dict[str, list[int]] = {}
        for number in self.tasks:
            by_class.setdefault(classes.class_of(number, self.metadata[number]), []).append(number)
        return {
            "scored": True,
            "measure": "accuracy" if self.bounded else "mean reward",
            **self._numbers(list(self.tasks), eval_set.pass_at),
            "by_difficulty": {
                name: self._numbers(by_class[name], eval_set.pass_at) for name in sorted(by_class, key=classes.rank)
            },
        }

    def _numbers(self, numbers: list[int], ks: tuple[int, ...]) -> dict[str, Any]:
        tasks = [self.tasks[number] for number in numbers]
        shares = [answers.share for answers in tasks]
        rewards = [value for answers in tasks for value in answers.reward.values()]
        if not self.bounded:
            means = [_mean(list(answers.reward.values())) for answers in tasks]
            return {
                "tasks": len(tasks),
                "answers": len(rewards),
                "accuracy": None,
                "standard_error": round(standard_error(means), 5),
                "reward": _mean(rewards),
                "mean_at": {},
                "pass_at": {},
            }
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


def difficulty_classes(eval_set: EvalSet, tallies: Sequence[Tally]) -> DifficultyClasses:
    """Return the difficulty classes of a set, from all its evaluations, first to last."""
    if eval_set.difficulty is None:
        return DifficultyClasses.from_first_evaluation(tallies[0].shares() if tallies else {})
    metadata = [text for tally in tallies for text in tally.metadata.values()]
    return DifficultyClasses.from_metadata(eval_set.difficulty, metadata)


def mean_at(answers: TaskAnswers, k: int) -> float:
    """Return the share of right answers among the first ``k``, ordered by experience id."""
    return sum(right for _, right in sorted(answers.right.items())[:k]) / k


def _by_k(
    tasks: list[TaskAnswers], ks: tuple[int, ...], estimate: Callable[[TaskAnswers, int], float]
) -> Mapping[str, float]:
    """Average an estimate over the tasks with at least k answers, for each k that has any."""
    found = {}
    for k in ks:
        enough = [answers for answers in tasks if len(answers.right) >= k]
        if enough:
            found[str(k)] = _mean([estimate(answers, k) for answers in enough])
    return found


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 5) if values else 0.0
