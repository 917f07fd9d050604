"""Orders a finite number of tasks: a file's lines, or the items of a user's function."""

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
    """Items epoch by epoch. If ``order`` is ``shuffled``, each epoch has its own order, which the seed decides."""

    def __init__(self, items: Sequence[TaskItem], order: Literal["sequential", "shuffled"], seed: int) -> None:
        self._items = items
        self._permutation = lru_cache(maxsize=2)(self._shuffle) if order == "shuffled" else None
        self._seed = seed

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> Sequence[TaskItem]:
        """The items of one epoch."""
        return self._items

    def __getitem__(self, index: int) -> TaskItem:
        if index < 0 or not self._items:
            raise IndexError(index)
        epoch, position = divmod(index, len(self._items))
        return self._items[position if self._permutation is None else int(self._permutation(epoch)[position])]

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.default_rng(seed_of("epoch", self._seed, epoch))
        return generator.permutation(len(self._items))


def distinct(items: Sequence[TaskItem]) -> list[TaskItem]:
    """Return the first item of each prompt, in an order that depends on the prompts alone."""
    first: dict[str, TaskItem] = {}
    for item in items:
        first.setdefault(item.prompt, item)
    return sorted(first.values(), key=lambda item: hashlib.sha256(item.prompt.encode()).digest())


def by_difficulty(items: Sequence[TaskItem], path: str) -> list[TaskItem]:
    """Return the items sorted by the number at ``path`` in their metadata; equal ones keep their order.

    Raises ConfigError for an item without such a number.
    """
    return sorted(items, key=lambda item: _number_at(item, path))


def _number_at(item: TaskItem, path: str) -> float:
    value: Any = item.metadata
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"tasks.difficulty = {path!r} is not a number in the metadata of the task {item.prompt[:60]!r}, which "
            f"has {', '.join(item.metadata) or 'nothing'}"
        )
    return float(value)


def seed_of(*parts: object) -> int:
    """Return a 32-bit seed. The seeds of neighboring numbers are unrelated."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")
