"""Takes tasks from the log for an explorer, as a member of the group of explorers."""

from __future__ import annotations

import time
from collections.abc import Callable

from kafka import OffsetAndMetadata
from kafka.errors import KafkaError

from producers.explorer.backlog import Delivery
from producers.explorer.membership import Membership
from producers.explorer.task_check import check_size, check_task
from rft.config import Config
from rft.log.events import Event
from rft.log.group_feed import POSITION_MS, GroupFeed
from rft.log.records import Reject, read_record
from rft.telemetry.activity import ThreadPulse
from rft.telemetry.input_wait import LagLook
from schemas.events import Task


class TaskFeed(GroupFeed):
    """Takes tasks, on a thread of its own. A task is finished when all its rollouts are published."""

    def __init__(
        self,
        config: Config,
        member_id: str,
        *,
        deliver: Callable[[list[Delivery]], None],
        saturated: Callable[[], bool],
        reject: Reject,
    ) -> None:
        """Connect. Raises BrokerError. The three functions are called on the feed's thread.

        Args:
            deliver: Takes tasks that have not been delivered here before.
            saturated: Returns whether there is enough work for now.
            reject: Takes an event that is no task. The event counts as finished when it returns.
        """
        self._deliver = deliver
        self._reject = reject
        self._membership_check_s = config.log.session_timeout_ms / 1000
        self._check_membership_at = 0.0
        self.pulse = ThreadPulse()
        """Beats with each turn of the thread's loop."""
        self.look = LagLook(self.at_end)
        """Tells whether tasks are on the log that do not come."""
        self.acknowledged = 0
        """Rollouts of which the broker has acknowledged all rows."""
        self._membership = Membership(config)
        super().__init__(
            config,
            member_id,
            "tasks",
            self._membership.group,
            saturated=saturated,
            needed="no explorer had finished them",
            **self._membership.options,
        )

    def published(self, partition: int, offset: int) -> None:
        """Note that the broker has acknowledged all rows of one more rollout of the task here. Thread-safe."""
        self.finished(partition, offset)
        self.acknowledged += 1

    def cancelled(self, partition: int, offset: int) -> None:
        """Note that one more rollout of the task at this position will publish nothing. Thread-safe."""
        self.finished(partition, offset)

    def turned(self, *, came: bool, idle: bool) -> None:
        """Beat, and look for tasks that do not come."""
        self.pulse.beat()
        if came or idle:
            self.look.came()
        else:
            self.look.nothing_came()

    def take(self, events: list[Event]) -> None:
        """Deliver tasks that were not delivered before."""
        deliveries = []
        for event in events:
            task = self._read(event)
            if task is None:
                self._ledger.delivered(event.partition, event.offset, parts=0)
            elif self._ledger.delivered(event.partition, event.offset, task.rollouts):
                deliveries.append(Delivery(event.partition, event.offset, task))
        if deliveries:
            self._deliver(deliveries)

    def check_error(self, error: KafkaError) -> None:
        """Raise FencedError or BrokerError if ``error`` says that this process cannot be a member."""
        self._membership.raise_if_excluded(error)

    def nothing_to_commit(self) -> None:
        """Commit again what is committed: the answer says whether another process has taken over our static id.

        kafka-python hears that by a heartbeat, too, but tells nobody.
        """
        now = time.monotonic()
        if self._membership.id is None or now < self._check_membership_at:
            return
        self._check_membership_at = now + self._membership_check_s
        try:
            for partition in self._consumer.assignment():
                offset = self._consumer.committed(partition, timeout_ms=POSITION_MS)
                if offset is not None:
                    self._consumer.commit({partition: OffsetAndMetadata(offset, "", -1)}, timeout_ms=POSITION_MS)
                    return
        except KafkaError as error:
            self._membership.raise_if_excluded(error)

    def _read(self, event: Event) -> Task | None:
        """Return the event's task; None if it is none that can be rolled out."""

        def check(task: Task) -> None:
            check_size(event, self._config)
            check_task(task)

        return read_record(event, Task, self._reject, check=check)
