"""Draws tasks on demand, without end: items of a reasoning-gym dataset, or seeds of an environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

from rft.environments.base import MAX_SEED, SEED
from rft.errors import ConfigError
from rft.plugins import USER_FAILURES
from rft.rewards.dataset_scorer import make_dataset
from rft.rewards.gym_import import dataset_names, import_dataset
from rft.tasks.base import TaskItem, make_item
from rft.tasks.finite import seed_of

ENDLESS = 2**31
"""The length that an endless source reports."""

CHUNK = 500
"""Items drawn from one seed. Some datasets make all their items at once, and none if they are asked for too many."""

TRIES = 50
"""Draws for one training task before the held-out prompts count as nearly all that there are."""


class DrawnTasks(Protocol):
    """A source without end. It has an item for each ``(stream, seed, index)``, in any order."""

    name: str

    def item(self, stream: str, seed: int, index: int) -> TaskItem:
        """Return one item. Raises ConfigError if it cannot be made or the prompt template does not fit."""
        ...


class EnvironmentSeeds(DrawnTasks):
    """Episodes of ``rollout.environment``, by seed."""

    def __init__(self, environment: str, template: str) -> None:
        self.name = "environment"
        self._environment = environment
        self._template = template

    def item(self, stream: str, seed: int, index: int) -> TaskItem:
        chosen = seed_of(stream, seed, index) & MAX_SEED
        # The environment's observation begins the conversation, not this text.
        raw = {"question": f"{self._environment}, seed {chosen}", SEED: chosen, "messages": []}
        return make_item(raw, self._template, self.name)


class Gym(DrawnTasks):
    """One dataset of reasoning-gym."""

    def __init__(self, dataset: str, options: Mapping[str, Any], template: str) -> None:
        self.name = f"reasoning_gym:{dataset}"
        self._dataset = dataset
        self._options = dict(options)
        self._template = template
        self._chunk = lru_cache(maxsize=8)(self._make)
        self._make(0)

    def item(self, stream: str, seed: int, index: int) -> TaskItem:
        chunk, position = divmod(index, CHUNK)
        return make_item(self._chunk(seed_of(stream, seed, chunk))[position], self._template, self.name)

    def _make(self, seed: int) -> Any:
        names = dataset_names()
        if self._dataset not in names:
            # With more than a hundred datasets, only the nearest are listed.
            near = get_close_matches(self._dataset, names, n=3) or sorted(names)[:5]
            raise ConfigError(
                f"tasks: reasoning-gym has no dataset {self._dataset!r}; "
                f"did you mean {', '.join(near)}? It has {len(names)} datasets"
            )
        import_dataset(self._dataset)
        from reasoning_gym.factory import DATASETS

        try:
            return make_dataset(self._dataset, self._options, seed=seed, size=CHUNK)
        # Each dataset checks its options in its own way: assertions, TypeError, ValueError.
        except USER_FAILURES as error:
            raise ConfigError(
                f"tasks.options do not fit {self.name}: {type(error).__name__}: {error}; it takes "
                f"{', '.join(name for name in _fields(DATASETS[self._dataset][1]) if name not in ('seed', 'size'))}"
            ) from error


class EndlessTasks:
    """Training tasks that are drawn. None of them has an excluded prompt."""

    def __init__(self, source: DrawnTasks, seed: int, excluded: frozenset[str]) -> None:
        self._source = source
        self._seed = seed
        self._excluded = excluded

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> TaskItem:
        if index < 0:
            raise IndexError(index)
        for attempt in range(TRIES):
            item = self._source.item(f"train-{attempt}", self._seed, index)
            if item.prompt not in self._excluded:
                return item
        raise ConfigError(
            f"{self._source.name}: {TRIES} draws in a row gave held-out prompts. {len(self._excluded)} are held out, "
            "which leaves next to nothing to train on: lower eval.tasks or widen tasks.options"
        )


def held_out_items(source: DrawnTasks, tasks: int, setting: str) -> list[TaskItem]:
    """Return the first ``tasks`` distinct prompts of a separate stream, which is the same for every ``run.seed``.

    Raises ConfigError, which quotes ``setting``, if the dataset does not have that many.
    """
    found: dict[str, TaskItem] = {}
    draws: Iterator[int] = count()
    since_new = 0
    while len(found) < tasks:
        item = source.item("held-out", 0, next(draws))
        since_new = since_new + 1 if item.prompt in found else 0
        if since_new == 20 * TRIES:
            raise ConfigError(
                f"{setting}, but {source.name} seems to have only {len(found)} different prompts; "
                "lower it or widen tasks.options"
            )
        found.setdefault(item.prompt, item)
    return list(found.values())


def _fields(config_class: Any) -> list[str]:
    return list(config_class.__dataclass_fields__)
