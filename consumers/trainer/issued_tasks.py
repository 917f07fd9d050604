"""Reads which tasks are issued, for a trainer that holds its steps back for the slowest groups."""

from __future__ import annotations

import time
from collections.abc import Iterable

from consumers.trainer.ready_reader import client_id
from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, read_records
from rft.training.buffer import GroupBuffer
from rft.training.learner import Learner
from rft.training.step_hold import HoldPace, StepHold
from schemas.events import Task


class IssuedTasks:
    """Knows which groups the next step waits for. Only a trainer that paces the run has any."""

    def __init__(self, config: Config, learner: Learner, buffer: GroupBuffer) -> None:
        """Raises BrokerError."""
        trainer = config.trainer
        self._learner = learner
        self._buffer = buffer
        self._sync_interval = trainer.sync_interval
        self._hold = StepHold(
            HoldPace(config.new_groups_per_step, trainer.sync_interval, trainer.max_staleness, config.buffer.hold_s)
        )
        self._rejects = CountedRejects()
        """Dead letters of this topic are the explorers' to publish."""
        self._read_for: int | None = None
        """Version for which the topic was read to its end."""
        self._reader = EventReader(config, f"{client_id(config)}-tasks", ["tasks"])

    def awaited(self, version: int) -> list[str]:
        """Return the numbers of the groups that the next step waits for, the most urgent first.

        Call it when a step is possible. Raises BrokerError.
        """
        if version != self._read_for:
            # A task becomes urgent only as versions pass, so it is enough to look once for each version.
            ends = self._reader.end_offsets()
            while not self._reader.caught_up(ends):
                try:
                    events = self._reader.poll(1.0)
                except MissingRangeError as error:
                    # No step can wait for a task that was deleted.
                    self._reader.seek("tasks", error.partition, error.end)
                    continue
                self._saw(read_records(events, Task, self._rejects.reject))
            self._read_for = version
        learner = self._learner
        steps_left = self._sync_interval - (learner.step - learner.version_step) - 1
        awaited = self._hold.awaited(
            version, steps_left, self._buffer.oldest_versions(), self._buffer.has_come, time.monotonic()
        )
        return [str(number) for number in awaited]

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _saw(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task.split == "train":
                self._hold.saw_task(task.number, task.min_version)
