"""Tasks that can be counted: a file's lines, what a function of the user's gave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rft.errors import ConfigError
from rft.tasks.base import TaskItem


class FiniteTasks:
    """Items epoch by epoch; if ``order`` is ``shuffled``, each in an order of its own that the seed decides."""

    def __init__(self, items: Sequence[TaskItem], order: Literal["sequential", "shuffled"], seed: int) -> None:
        self._items = items
        self._permutation = lru_cache(maxsize=2)(self._shuffle) if order == "shuffled" else None
        self._seed = seed

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> Sequence[TaskItem]:
        """Those of one epoch."""
        return self._items

    def __getitem__(self, index: int) -> TaskItem:
        if index < 0 or not self._items:
            raise IndexError(index)
        epoch, place = divmod(index, len(self._items))
        return self._items[place if self._permutation is None else int(self._permutation(epoch)[place])]

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.default_rng(seed_of("epoch", self._seed, epoch))
        return generator.permutation(len(self._items))


def distinct(items: Sequence[TaskItem]) -> list[TaskItem]:
    """The first item of each prompt, in an order that depends on the prompts alone."""
    first: dict[str, TaskItem] = {}
    for item in items:
        first.setdefault(item.prompt, item)
    return sorted(first.values(), key=lambda item: hashlib.sha256(item.prompt.encode()).digest())


def by_difficulty(items: Sequence[TaskItem], path: str) -> list[TaskItem]:
    """Easy items first, by the number at ``path`` of their metadata; equals as they were.

    Raises ConfigError for an item without one.
    """
    return sorted(items, key=lambda item: _number_at(item, path))


def _number_at(item: TaskItem, path: str) -> float:
    value: Any = item.metadata
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"tasks.difficulty = {path!r} is no number of the task {item.prompt[:60]!r}; its metadata has "
            f"{', '.join(item.metadata) or 'nothing'}"
        )
    return float(value)


def seed_of(*parts: object) -> int:
    """A 32-bit seed; seeds of neighbouring numbers have nothing in common."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")
