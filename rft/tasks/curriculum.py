"""Chooses the next task by the results of earlier ones. Pure.

The history is a fold of the log, which may be read in any order and with repetitions: tasks by number, and rewards by
number and sample. A choice is on the log as its task, so a conductor that restarts has the same state and continues.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from rft.config import TasksConfig
from rft.errors import ConfigError
from rft.plugins import USER_FAILURES, is_plugin, resolve
from rft.tasks.base import TaskItem

REMEMBERED = 20_000
"""Newest groups that pass rates are computed from, a few MB: older ones say little about the current policy."""
CANDIDATES = 64
"""Items that are drawn for each task; the best of them is chosen."""
PASS_RATE = "pass_rate"


class History:
    """The results of the newest groups, by prompt."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._newest = -1
        self._prompts: dict[int, str] = {}
        self._rewards: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._numbers: defaultdict[str, set[int]] = defaultdict(set)

    def saw_task(self, number: int, prompt: str) -> None:
        """Note that the training task ``number`` has ``prompt``."""
        if self._is_old(number):
            return
        self._prompts[number] = prompt
        self._numbers[prompt].add(number)

    def saw_reward(self, number: int, sample: int, reward: float) -> None:
        """Note the reward of one rollout of task ``number``; a failed rollout has 0."""
        if not self._is_old(number):
            self._rewards[number].setdefault(sample, reward)

    def pass_rate(self, prompt: str) -> tuple[float, int]:
        """Return the mean reward, clipped to [0, 1] each, and the number of groups; (0, 0) if there are none."""
        means = [
            math.fsum(min(1.0, max(0.0, reward)) for reward in self._rewards[number].values())
            / len(self._rewards[number])
            for number in sorted(self._numbers.get(prompt, ()))
            if number in self._rewards
        ]
        return (math.fsum(means) / len(means), len(means)) if means else (0.0, 0)

    def in_progress(self, prompt: str) -> bool:
        """Return whether a task with this prompt is issued and has no result yet."""
        return any(number not in self._rewards for number in self._numbers.get(prompt, ()))

    def _is_old(self, number: int) -> bool:
        """Return whether ``number`` is too old to be remembered. A new number makes older ones too old."""
        if number > self._newest:
            for old in range(max(0, self._newest - self._remembered + 1), number - self._remembered + 1):
                self._forget(old)
            self._newest = number
        return number <= self._newest - self._remembered

    def _forget(self, number: int) -> None:
        self._rewards.pop(number, None)
        prompt = self._prompts.pop(number, None)
        if prompt is not None:
            self._numbers[prompt].discard(number)
            if not self._numbers[prompt]:
                del self._numbers[prompt]


Choose = Callable[[int, Sequence[TaskItem], History], int]
"""(task number, all items, history) → index of the item to choose."""


class Curriculum:
    """Decides which item of the training source a task has."""

    def __init__(self, config: TasksConfig, seed: int, items: Sequence[TaskItem]) -> None:
        """Raises ConfigError if ``tasks.order`` names a function that does not exist."""
        self.history = History()
        self._items = items
        self._choose: Choose | None = None
        if config.order == PASS_RATE:
            self._choose = by_pass_rate(config.target_pass_rate, seed)
        elif is_plugin(config.order):
            self._choose = _checked(config.order, resolve("tasks.order", config.order, {}))

    @property
    def learns(self) -> bool:
        """True if its choices depend on results."""
        return self._choose is not None

    def index(self, number: int) -> int:
        """Return the index of the item for training task ``number``, which is in progress from then on.

        Raises ConfigError if the user's function fails.
        """
        if self._choose is None:
            return number
        index = self._choose(number, self._items, self.history)
        self.history.saw_task(number, self._items[index].prompt)
        return index


def by_pass_rate(target: float, seed: int) -> Choose:
    """Return a function that chooses, among random items, the one whose pass rate is nearest to ``target``.

    A pass rate includes one more group with the rate ``target``. So items without a result come first, and one bad
    group does not exclude an item for good.
    """

    def choose(number: int, items: Sequence[TaskItem], history: History) -> int:
        size = len(items)
        dice = np.random.default_rng([seed, number])
        drawn = dice.choice(size, min(CANDIDATES, size), replace=False) if size <= 10**6 else dice.integers(0, size, 64)

        def distance(index: int) -> tuple[bool, float, int]:
            prompt = items[index].prompt
            rate, groups = history.pass_rate(prompt)
            return history.in_progress(prompt), abs((rate * groups + target) / (groups + 1) - target), groups

        return min((int(index) for index in drawn), key=distance)

    return choose


def _checked(name: str, function: Callable[..., int]) -> Choose:
    def choose(number: int, items: Sequence[TaskItem], history: History) -> int:
        try:
            index = int(function(number, items, history))
        # The user's code may raise anything.
        except USER_FAILURES as error:
            raise ConfigError(f"tasks.order: {name} raised {type(error).__name__}: {error}") from error
        if not 0 <= index < len(items):
            raise ConfigError(f"tasks.order: {name} returned {index}, but there are items 0 to {len(items) - 1}")
        return index

    return choose
