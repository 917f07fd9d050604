"""Holds the tasks that were delivered and are not started yet (pure).

A task that asks for newer weights than the explorer holds waits apart, so that it delays no other.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from schemas.events import Task


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A task and its position in the ``tasks`` topic."""

    partition: int
    offset: int
    task: Task


class Backlog:
    """First come, first served among the tasks whose weights are here. Waiting ones join in order of version."""

    def __init__(self) -> None:
        self._ready: deque[Delivery] = deque()
        self._waiting: list[tuple[int, int, Delivery]] = []
        self._version = -1
        self._count = 0
        self._ready_samples = 0

    @property
    def ready_samples(self) -> int:
        """Rollouts that could start now."""
        return self._ready_samples

    @property
    def waiting(self) -> int:
        """Tasks that wait for newer weights."""
        return len(self._waiting)

    @property
    def awaited_version(self) -> int | None:
        """Lowest weight version that one of them waits for; None if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, delivery: Delivery) -> None:
        """Add a delivered task."""
        if delivery.task.min_version <= self._version:
            self._make_ready(delivery)
        else:
            self._count += 1
            heapq.heappush(self._waiting, (delivery.task.min_version, self._count, delivery))

    def set_version(self, version: int) -> None:
        """Note that the explorer holds the weights of ``version``."""
        self._version = version
        while self._waiting and self._waiting[0][0] <= version:
            self._make_ready(heapq.heappop(self._waiting)[2])

    def pop(self, running: int, limit: int) -> Delivery | None:
        """Remove and return the next task, if its rollouts and those ``running`` are within ``limit`` or none runs."""
        if not self._ready or (running and running + self._ready[0].task.rollouts > limit):
            return None
        delivery = self._ready.popleft()
        self._ready_samples -= delivery.task.rollouts
        return delivery

    def _make_ready(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._ready_samples += delivery.task.rollouts
