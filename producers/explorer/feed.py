"""The consumer thread of an explorer: takes tasks from the log and commits the offsets of finished ones.

A KafkaConsumer is not thread-safe, so only this thread uses it. It always polls, also while it takes no tasks and its
partitions are paused: a consumer that does not poll is expelled from its group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from producers.explorer.backlog import Delivery
from producers.explorer.ledger import TaskLedger
from producers.explorer.membership import Membership
from producers.explorer.task_check import check_size, check_task
from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.events import Event
from rft.log.group_join import finish_join
from rft.log.offset_queries import ask_offsets
from rft.log.outages import Outage, asking_once, wait_out
from rft.log.reader import to_event
from rft.log.records import Reject, read_record
from rft.log.registry import schema_lookup
from rft.log.retention import SKIP, retention_error, skip_or_raise
from rft.log.topics import topic_name
from rft.telemetry.activity import ThreadPulse
from rft.telemetry.input_wait import LagLook
from schemas.events import Task

POLL_MS = 100
COMMIT_INTERVAL_S = 0.5
"""After a ``kill -9``, tasks finished within this time are rolled out again, as the unfinished ones are."""
LEAVE_TIMEOUT_MS = 5000
POSITION_MS = 1000
NOT_COMMITTED = "offsets of %s are not committed yet: %s"

log = logging.getLogger("rft")


class TaskFeed(AsyncConsumerRebalanceListener):
    """Takes tasks as a member of the group of explorers, on a thread of its own."""

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
        self._config = config
        self._topic = topic_name(config, "tasks")
        self._max_bytes = config.log.max_message_bytes
        self._writer_schemas = schema_lookup(config)
        self._deliver = deliver
        self._saturated = saturated
        self._reject = reject
        self._ledger = TaskLedger()
        self._acknowledged: deque[LogPosition] = deque()
        self._taking = threading.Event()
        self._open = threading.Event()
        self._commit_at = 0.0
        self._membership_check_s = config.log.session_timeout_ms / 1000
        self._check_membership_at = 0.0
        self._failure = f"cannot take tasks from {self._topic}"
        self._outage = Outage(self._failure)
        self.pulse = ThreadPulse()
        """Beats with each turn of the thread's loop."""
        self.look = LagLook(self._at_end)
        """Tells whether tasks are on the log that do not come."""
        self.acknowledged = 0
        """Rollouts of which the broker has acknowledged all rows."""
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""
        self._membership = Membership(config)
        # "none": the explorer must stop when the log has lost tasks, and not skip them.
        self._consumer: KafkaConsumer = make_consumer(
            config, member_id, self._membership.group, auto_offset_reset="none", **self._membership.options
        )
        self._consumer.subscribe([self._topic], listener=self)
        self._thread = threading.Thread(target=self._run, name="task-feed", daemon=True)

    def start(self) -> None:
        """Join the group and take tasks."""
        self._taking.set()
        self._open.set()
        self._thread.start()

    def published(self, partition: int, offset: int) -> None:
        """Note that the broker has acknowledged all rows of one more rollout of the task here. Thread-safe."""
        self._acknowledged.append(LogPosition(partition, offset))
        self.acknowledged += 1

    def cancelled(self, partition: int, offset: int) -> None:
        """Note that one more rollout of the task at this position will publish nothing. Thread-safe."""
        self._acknowledged.append(LogPosition(partition, offset))

    def stop_taking(self) -> None:
        """Take no more tasks, but go on committing what finishes."""
        self._taking.clear()

    def close(self, timeout_s: float) -> None:
        """Commit the finished tasks and leave the group, so that the others get the partitions at once."""
        self._taking.clear()
        self._open.clear()
        self._thread.join(timeout_s)

    # kafka-python calls these on its own thread, while the feed's thread waits in poll() or close(): a commit must
    # be awaited there, and the ledger is never used by both at once.

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        log.info("has partitions %s of %s", sorted(p.partition for p in self._consumer.assignment()), self._topic)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._settle()
        offsets = self._ledger.committable()
        try:
            if offsets:
                await self._consumer.commit_async(self._as_kafka(offsets), callback=lambda *_: None)
        except KafkaError as error:
            log.warning(NOT_COMMITTED, self._topic, error)
        self._ledger.lost(p.partition for p in revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._settle()
        self._ledger.lost(p.partition for p in lost)

    def _run(self) -> None:
        try:
            while self._open.is_set():
                self.pulse.beat()
                self._settle()
                if time.monotonic() >= self._commit_at:
                    self._commit()
                self._pause_or_resume()
                batches = self._poll()
                self._look_for_lag(came=bool(batches))
                self._deliver_tasks(batches)
            self._settle()
            self._commit()
        # The role must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error
        finally:
            self._consumer.close(autocommit=False, timeout_ms=LEAVE_TIMEOUT_MS)

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        finish_join(self._consumer)
        try:
            batches: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
        except NoOffsetForPartitionError as error:
            self._consumer.seek_to_beginning(*error.args[0])
            return {}
        except OffsetOutOfRangeError as error:
            for partition, offset in error.args[0].items():
                self._skip_deleted(partition, offset)
            return {}
        except KafkaError as error:
            self._membership.raise_if_excluded(error)
            self._outage.failed(error)
            return {}
        self._outage.succeeded()
        return batches

    def _look_for_lag(self, *, came: bool) -> None:
        if came or not self._consumer.assignment() - self._consumer.paused():
            self.look.came()
        else:
            self.look.nothing_came()

    def _at_end(self) -> bool:
        """Return whether all tasks were delivered; also if the broker does not say."""
        try:
            with asking_once():
                ends = ask_offsets(self._consumer.end_offsets, self._consumer.assignment())
            at = {partition: self._consumer.position(partition, timeout_ms=POSITION_MS) for partition in ends}
        except (BrokerError, KafkaError) as error:
            log.debug("the lag of %s is not known: %s", self._topic, error)
            return True
        return all((at[partition] or 0) >= end for partition, end in ends.items())

    def _skip_deleted(self, partition: TopicPartition, offset: int) -> None:
        """Go on where the log begins. Raises MissingRangeError when tasks were deleted, unless ``log.skip_deleted``."""
        ask = self._consumer.beginning_offsets
        begin = wait_out(self._failure, lambda: ask_offsets(ask, [partition]))[partition]
        if offset < begin:
            number = partition.partition
            missing = retention_error(
                self._config, "tasks", number, offset, begin, SKIP, needed="no explorer had finished them"
            )
            skip_or_raise(self._config, missing)
        self._consumer.seek(partition, begin)

    def _settle(self) -> None:
        """Enter in the ledger what was acknowledged since the last call."""
        while self._acknowledged:
            self._ledger.published(*self._acknowledged.popleft())

    def _commit(self) -> None:
        self._commit_at = time.monotonic() + COMMIT_INTERVAL_S
        offsets = self._ledger.committable()
        if not offsets:
            self._check_membership()
            return
        try:
            self._consumer.commit(self._as_kafka(offsets))
        except KafkaError as error:
            self._membership.raise_if_excluded(error)
            # The group is being rebalanced or the broker is not reachable: at worst the tasks are delivered again.
            log.warning(NOT_COMMITTED, self._topic, error)
        else:
            self._ledger.committed(offsets)

    def _check_membership(self) -> None:
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

    def _as_kafka(self, offsets: dict[int, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        return {TopicPartition(self._topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}

    def _pause_or_resume(self) -> None:
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        if self._saturated() or not self._taking.is_set():
            if assigned - paused:
                self._consumer.pause(*(assigned - paused))
        elif paused:
            self._consumer.resume(*paused)

    def _deliver_tasks(self, batches: dict[TopicPartition, list[Any]]) -> None:
        deliveries = []
        for partition, messages in batches.items():
            at = EntityPartition("tasks", partition.partition)
            for message in messages:
                event = to_event(at, message, self._max_bytes, self._writer_schemas)
                task = self._read(event)
                if task is None:
                    self._ledger.delivered(partition.partition, message.offset, rollouts=0)
                elif self._ledger.delivered(partition.partition, message.offset, task.rollouts):
                    deliveries.append(Delivery(partition.partition, message.offset, task))
        if deliveries and self._taking.is_set():
            self._deliver(deliveries)

    def _read(self, event: Event) -> Task | None:
        """Return the event's task; None if it is none that can be rolled out."""

        def check(task: Task) -> None:
            check_size(event, self._config)
            check_task(task)

        return read_record(event, Task, self._reject, check=check)
