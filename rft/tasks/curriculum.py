"""Which task comes next, by how those before it went. Pure.

What is known is a fold of the log, in any order and with repetitions: tasks by number and rewards by number and sample.
A choice once made stands on the log as its task, so a conductor that starts again has the same state and goes on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from rft.config import TasksConfig
from rft.errors import ConfigError
from rft.plugins import is_plugin, load
from rft.tasks.base import TaskItem

REMEMBERED = 20_000
"""Newest groups that pass rates are made of, a few MB: what is older says little of the policy as it is now."""
CANDIDATES = 64
"""Items that are drawn for each task; the best of them is asked."""
PASS_RATE = "pass_rate"


class History:
    """How the newest groups went, by prompt."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._newest = -1
        self._prompts: dict[int, str] = {}
        self._rewards: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._numbers: defaultdict[str, set[int]] = defaultdict(set)

    def saw_task(self, number: int, prompt: str) -> None:
        """Train task ``number`` asks ``prompt``."""
        if self._is_old(number):
            return
        self._prompts[number] = prompt
        self._numbers[prompt].add(number)

    def saw_reward(self, number: int, sample: int, reward: float) -> None:
        """One rollout of task ``number`` was scored; one that failed counts 0."""
        if not self._is_old(number):
            self._rewards[number].setdefault(sample, reward)

    def pass_rate(self, prompt: str) -> tuple[float, int]:
        """Mean reward, each clipped to [0, 1], and of how many groups; (0, 0) when there is none."""
        means = [
            math.fsum(min(1.0, max(0.0, reward)) for reward in self._rewards[number].values())
            / len(self._rewards[number])
            for number in sorted(self._numbers.get(prompt, ()))
            if number in self._rewards
        ]
        return (math.fsum(means) / len(means), len(means)) if means else (0.0, 0)

    def under_way(self, prompt: str) -> bool:
        """A task that asks it is issued, and nothing has come of it yet."""
        return any(number not in self._rewards for number in self._numbers.get(prompt, ()))

    def _is_old(self, number: int) -> bool:
        """Whether a number is too old to be remembered; a new one makes others so."""
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
"""(task number, all items, history) → index of the item to ask."""


class Curriculum:
    """Says which item of the training source a task is to ask."""

    def __init__(self, config: TasksConfig, seed: int, items: Sequence[TaskItem]) -> None:
        """Raises ConfigError when ``tasks.order`` names a function that there is not."""
        self.history = History()
        self._items = items
        self._choose: Choose | None = None
        if config.order == PASS_RATE:
            self._choose = by_pass_rate(config.target_pass_rate, seed)
        elif is_plugin(config.order):
            self._choose = _of_user(config.order, load(config.order))

    @property
    def learns(self) -> bool:
        """Whether its choices depend on results."""
        return self._choose is not None

    def index(self, number: int) -> int:
        """Of the item for train task ``number``, which is then under way. Raises ConfigError as the function does."""
        if self._choose is None:
            return number
        index = self._choose(number, self._items, self.history)
        self.history.saw_task(number, self._items[index].prompt)
        return index


def by_pass_rate(target: float, seed: int) -> Choose:
    """The item, of some drawn by lot, whose pass rate is nearest to ``target``.

    A rate is of ``groups`` groups and one more that has ``target``: items that were never asked come first, and one
    bad group does not banish an item.
    """

    def choose(number: int, items: Sequence[TaskItem], history: History) -> int:
        size = len(items)
        dice = np.random.default_rng([seed, number])
        drawn = dice.choice(size, min(CANDIDATES, size), replace=False) if size <= 10**6 else dice.integers(0, size, 64)

        def distance(index: int) -> tuple[bool, float, int]:
            prompt = items[index].prompt
            rate, groups = history.pass_rate(prompt)
            return history.under_way(prompt), abs((rate * groups + target) / (groups + 1) - target), groups

        return min((int(index) for index in drawn), key=distance)

    return choose


def _of_user(name: str, function: Callable[..., int]) -> Choose:
    def choose(number: int, items: Sequence[TaskItem], history: History) -> int:
        try:
            index = int(function(number, items, history))
        # Anyone's code, which may raise anything.
        except Exception as error:
            raise ConfigError(f"tasks.order: {name} raised {type(error).__name__}: {error}") from error
        if not 0 <= index < len(items):
            raise ConfigError(f"tasks.order: {name} returned {index}, but there are items 0 to {len(items) - 1}")
        return index

    return choose
