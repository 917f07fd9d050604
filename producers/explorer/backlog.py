"""Tasks that were delivered and are not started yet (pure).

A task that asks for newer weights than the explorer holds waits aside, so that it holds back no other.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from schemas.events import Task


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A task and its place in the ``tasks`` topic."""

    partition: int
    offset: int
    task: Task


class Backlog:
    """First come, first served among the tasks whose weights are here; waiting ones join in order of version."""

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

    def add(self, delivery: Delivery) -> None:
        if delivery.task.min_version <= self._version:
            self._make_ready(delivery)
        else:
            self._count += 1
            heapq.heappush(self._waiting, (delivery.task.min_version, self._count, delivery))

    def holds(self, version: int) -> None:
        """The explorer's weights are now of ``version``."""
        self._version = version
        while self._waiting and self._waiting[0][0] <= version:
            self._make_ready(heapq.heappop(self._waiting)[2])

    def take(self, running: int, limit: int) -> Delivery | None:
        """The next task, if its rollouts and those ``running`` are within ``limit``, or if none runs."""
        if not self._ready or (running and running + self._ready[0].task.samples > limit):
            return None
        delivery = self._ready.popleft()
        self._ready_samples -= delivery.task.samples
        return delivery

    def _make_ready(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._ready_samples += delivery.task.samples
