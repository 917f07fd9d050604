"""Takes the events of one topic as a member of a consumer group, and commits the offsets of finished ones.

A KafkaConsumer is not thread-safe, so only the feed's thread uses it. It always polls, also while it takes no events
and its partitions are paused: a consumer that does not poll is expelled from its group.
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

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.delivery_ledger import DeliveryLedger
from rft.log.events import Event
from rft.log.group_join import finish_join
from rft.log.offset_queries import ask_offsets
from rft.log.outages import Outage, asking_once, wait_out
from rft.log.reader import to_event
from rft.log.registry import schema_lookup
from rft.log.retention import SKIP, retention_error, skip_or_raise
from rft.log.topics import topic_name

POLL_MS = 100
COMMIT_INTERVAL_S = 0.5
"""After a ``kill -9``, events finished within this time are taken again, as the unfinished ones are."""
LEAVE_TIMEOUT_MS = 5000
POSITION_MS = 1000
NOT_COMMITTED = "offsets of %s are not committed yet: %s"

log = logging.getLogger("rft")


class GroupFeed(AsyncConsumerRebalanceListener):
    """A thread that takes events. A subclass says what to do with them in ``take``, which runs on this thread."""

    def __init__(
        self,
        config: Config,
        client_id: str,
        entity: str,
        group: str,
        *,
        saturated: Callable[[], bool],
        needed: str,
        **consumer_options: Any,
    ) -> None:
        """Connect. Raises BrokerError.

        Args:
            group: The consumer group's whole name.
            saturated: Returns whether there is enough work for now. Called on the feed's thread.
            needed: Completes the error when the log has deleted events: why they were needed.
        """
        self._config = config
        self._entity = entity
        self._topic = topic_name(config, entity)
        self._needed = needed
        self._max_bytes = config.log.max_message_bytes
        self._writer_schemas = schema_lookup(config)
        self._saturated = saturated
        self._ledger = DeliveryLedger()
        self._finished: deque[LogPosition] = deque()
        self._abandoned: deque[LogPosition] = deque()
        self._taking = threading.Event()
        self._open = threading.Event()
        self._commit_at = 0.0
        self._failure = f"cannot take {entity} from {self._topic}"
        self._outage = Outage(self._failure)
        self.error: Exception | None = None
        """What ended the thread, if it was not :meth:`close`."""
        # "none": a member must stop when the log has lost events, and not skip them.
        self._consumer: KafkaConsumer = make_consumer(
            config, client_id, group, auto_offset_reset="none", **consumer_options
        )
        self._consumer.subscribe([self._topic], listener=self)
        self._thread = threading.Thread(target=self._run, name=f"{entity}-feed", daemon=True)

    def take(self, events: list[Event]) -> None:
        """Take events; enter each in the ledger. Not called once :meth:`stop_taking` was."""
        raise NotImplementedError

    def turned(self, *, came: bool, idle: bool) -> None:
        """Note a turn of the loop: whether events ``came``, and whether the member was ``idle``: none could come."""

    def check_error(self, error: KafkaError) -> None:
        """Raise if ``error`` says that this process cannot be a member. Others pass by themselves."""

    def nothing_to_commit(self) -> None:
        """Do what a subclass wants to do from time to time between commits."""

    def start(self) -> None:
        """Join the group and take events."""
        self._taking.set()
        self._open.set()
        self._thread.start()

    def finished(self, partition: int, offset: int) -> None:
        """Note that one more part of the event here is done. Thread-safe."""
        self._finished.append(LogPosition(partition, offset))

    def abandoned(self, partition: int, offset: int) -> None:
        """Note that the event here is not worked on any more: whoever has the partition takes it again. Thread-safe."""
        self._abandoned.append(LogPosition(partition, offset))

    def stop_taking(self) -> None:
        """Take no more events, but go on committing what finishes."""
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
                self._take_abandoned_again()
                if time.monotonic() >= self._commit_at:
                    self._commit()
                self._pause_or_resume()
                batches = self._poll()
                self.turned(came=bool(batches), idle=not self._consumer.assignment() - self._consumer.paused())
                events = [
                    to_event(
                        EntityPartition(self._entity, at.partition), message, self._max_bytes, self._writer_schemas
                    )
                    for at, messages in batches.items()
                    for message in messages
                ]
                if events and self._taking.is_set():
                    self.take(events)
            self._settle()
            self._commit()
        # The role must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error
        finally:
            self._consumer.close(autocommit=False, timeout_ms=LEAVE_TIMEOUT_MS)

    def _events(self, at: TopicPartition, messages: list[Any]) -> list[Event]:
        partition = EntityPartition(self._entity, at.partition)
        return [to_event(partition, message, self._max_bytes, self._writer_schemas) for message in messages]

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
            self.check_error(error)
            self._outage.failed(error)
            return {}
        self._outage.succeeded()
        return batches

    def at_end(self) -> bool:
        """Return whether all events were taken; also if the broker does not say. Call it on the feed's thread."""
        try:
            with asking_once():
                ends = ask_offsets(self._consumer.end_offsets, self._consumer.assignment())
            at = {partition: self._consumer.position(partition, timeout_ms=POSITION_MS) for partition in ends}
        except (BrokerError, KafkaError) as error:
            log.debug("the lag of %s is not known: %s", self._topic, error)
            return True
        return all((at[partition] or 0) >= end for partition, end in ends.items())

    def _skip_deleted(self, partition: TopicPartition, offset: int) -> None:
        """Go on where the log begins. Raises MissingRangeError for deleted events, unless ``log.skip_deleted``."""
        ask = self._consumer.beginning_offsets
        begin = wait_out(self._failure, lambda: ask_offsets(ask, [partition]))[partition]
        if offset < begin:
            number = partition.partition
            missing = retention_error(self._config, self._entity, number, offset, begin, SKIP, needed=self._needed)
            skip_or_raise(self._config, missing)
        self._consumer.seek(partition, begin)

    def _settle(self) -> None:
        """Enter in the ledger what was finished since the last call."""
        while self._finished:
            self._ledger.published(*self._finished.popleft())

    def _take_abandoned_again(self) -> None:
        """Go back to abandoned events whose partition is here again. What follows them is recognized."""
        back: dict[int, int] = {}
        while self._abandoned:
            partition, offset = self._abandoned.popleft()
            if self._ledger.abandoned(partition, offset):
                back[partition] = min(offset, back.get(partition, offset))
        for partition, offset in back.items():
            at = TopicPartition(self._topic, partition)
            if at in self._consumer.assignment():
                self._consumer.seek(at, offset)

    def _commit(self) -> None:
        self._commit_at = time.monotonic() + COMMIT_INTERVAL_S
        offsets = self._ledger.committable()
        if not offsets:
            self.nothing_to_commit()
            return
        try:
            self._consumer.commit(self._as_kafka(offsets))
        except KafkaError as error:
            self.check_error(error)
            # The group is being rebalanced or the broker is not reachable: at worst the events are delivered again.
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
