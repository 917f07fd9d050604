"""The consumer thread of an explorer: takes tasks from the log and commits the offsets of finished ones.

A KafkaConsumer is not thread-safe, so this thread alone touches it. It polls all the time, also while it takes no
tasks (its partitions are then paused), because a consumer that does not poll is expelled from its group.
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
from rft.config import Config
from rft.errors import DecodeError
from rft.log.clients import make_consumer
from rft.log.offset_queries import ask_offsets
from rft.log.patience import OutageTolerance
from rft.log.registry import open_registry
from rft.log.retention import SKIP, deleted, skip_or_raise
from rft.log.topics import topic_name
from schemas.codec import decode
from schemas.events import Task

POLL_MS = 100
COMMIT_INTERVAL_S = 0.5
"""After a ``kill -9``, tasks finished within this time are done again, besides the unfinished ones."""
LEAVE_TIMEOUT_MS = 5000
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
        refuse: Callable[[Any, DecodeError], None],
    ) -> None:
        """Connect. Raises BrokerError. The three functions are called on the feed's thread.

        Args:
            deliver: Takes tasks that have not been delivered here before.
            saturated: Whether there is work enough for now.
            refuse: Takes a message (kafka-python's ConsumerRecord) that is no task, and why. The message counts
                as done when it returns.
        """
        self._config = config
        self._topic = topic_name(config, "tasks")
        self._max_bytes = config.log.max_message_bytes
        registry = open_registry(config)
        self._writer_schemas = None if registry is None else registry.find
        self._deliver = deliver
        self._saturated = saturated
        self._refuse = refuse
        self._ledger = TaskLedger()
        self._acknowledged: deque[tuple[int, int]] = deque()
        self._taking = threading.Event()
        self._open = threading.Event()
        self._commit_at = 0.0
        self._patience = OutageTolerance(f"cannot take tasks from {self._topic}")
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""
        group = f"{config.log.namespace}.explorers"
        # "none": tasks that the log has lost must stop the explorer, not be passed over.
        self._consumer: KafkaConsumer = make_consumer(config, member_id, group, auto_offset_reset="none")
        self._consumer.subscribe([self._topic], listener=self)
        self._thread = threading.Thread(target=self._run, name="task-feed", daemon=True)

    def start(self) -> None:
        """Join the group and take tasks."""
        self._taking.set()
        self._open.set()
        self._thread.start()

    def published(self, partition: int, offset: int) -> None:
        """The broker has acknowledged one more experience of the task at this place. From any thread."""
        self._acknowledged.append((partition, offset))

    def stop_taking(self) -> None:
        """Take no more tasks, but go on committing what finishes."""
        self._taking.clear()

    def close(self, timeout_s: float) -> None:
        """Commit what is finished and leave the group, so that the others get the partitions at once."""
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
                self._settle()
                if time.monotonic() >= self._commit_at:
                    self._commit()
                self._pause_or_resume()
                self._take(self._poll())
            self._settle()
            self._commit()
        # The thread's end is the role's end: its owner raises what is kept here.
        except Exception as error:
            self.error = error
        finally:
            self._consumer.close(autocommit=False, timeout_ms=LEAVE_TIMEOUT_MS)

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        try:
            batches: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
        except NoOffsetForPartitionError as error:
            self._consumer.seek_to_beginning(*error.args[0])
            return {}
        except OffsetOutOfRangeError as error:
            for partition, offset in error.args[0].items():
                self._go_on_behind(partition, offset)
            return {}
        except KafkaError as error:
            self._patience.bear(error)
            return {}
        self._patience.eased()
        return batches

    def _go_on_behind(self, partition: TopicPartition, offset: int) -> None:
        """Raises MissingRangeError when tasks were deleted, unless ``log.skip_deleted``."""
        begin = ask_offsets(self._consumer.beginning_offsets, [partition])[partition]
        if offset < begin:
            number = partition.partition
            missing = deleted(
                self._config, "tasks", number, offset, begin, SKIP, needed="no explorer had finished them"
            )
            skip_or_raise(self._config, missing)
        self._consumer.seek(partition, begin)

    def _settle(self) -> None:
        """Enter in the ledger what was acknowledged since the last time."""
        while self._acknowledged:
            self._ledger.published(*self._acknowledged.popleft())

    def _commit(self) -> None:
        self._commit_at = time.monotonic() + COMMIT_INTERVAL_S
        offsets = self._ledger.committable()
        if not offsets:
            return
        try:
            self._consumer.commit(self._as_kafka(offsets))
        except KafkaError as error:
            # The group is being rebalanced or the broker is away: at worst the tasks are delivered again.
            log.warning(NOT_COMMITTED, self._topic, error)
        else:
            self._ledger.committed(offsets)

    def _as_kafka(self, offsets: dict[int, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        return {TopicPartition(self._topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}

    def _pause_or_resume(self) -> None:
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        if self._saturated() or not self._taking.is_set():
            if assigned - paused:
                self._consumer.pause(*(assigned - paused))
        elif paused:
            self._consumer.resume(*paused)

    def _take(self, batches: dict[TopicPartition, list[Any]]) -> None:
        deliveries = []
        for place, messages in batches.items():
            for message in messages:
                try:
                    task = decode(
                        message.value or b"",
                        Task,
                        max_bytes=self._max_bytes,
                        writer_schemas=self._writer_schemas,
                        headers=message.headers or (),
                    )
                except DecodeError as error:
                    self._ledger.delivered(place.partition, message.offset, experiences=0)
                    self._refuse(message, error)
                else:
                    if self._ledger.delivered(place.partition, message.offset, task.samples):
                        deliveries.append(Delivery(place.partition, message.offset, task))
        if deliveries and self._taking.is_set():
            self._deliver(deliveries)
