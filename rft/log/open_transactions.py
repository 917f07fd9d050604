"""Names transactions that hold readers up because they are neither committed nor aborted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.outages import asking_once
from rft.log.topics import topic_name

logger = logging.getLogger(__name__)

HELD_BACK_S = 60.0
"""How long a partition is held back before it is named, and between two log lines about it. Producers commit within
seconds, and the broker aborts what is left open after their ``transaction.timeout.ms``, 1 to 15 minutes."""
ADVICE = (
    "A producer's open transaction holds back everything after it. Have the producer commit or abort it, or do so with "
    "kafka-transactions.sh (find-hanging, abort)"
)
_LOOK_EVERY_S = 1.0
_ASK_S = 2.0
"""A broker that does not answer in time is away: another reason to wait, which others name."""


class HeldBackPartitions:
    """Remembers which partitions stand still before an open transaction, and names them. Not thread-safe."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, tuple[int, float]] = {}
        """Offset and since when (monotonic seconds)."""
        self._name_at: dict[TopicPartition, float] = {}

    def note(self, partition: TopicPartition, offset: int, end: int) -> bool:
        """Note that no one can read beyond ``offset``, and that the log goes on to ``end``.

        Return True if the partition is to be named now; :meth:`name` does it.
        """
        now = time.monotonic()
        if end <= offset:
            self._since.pop(partition, None)
            return False
        if self._since.get(partition, (-1, 0.0))[0] != offset:
            self._since[partition] = (offset, now)
            self._name_at[partition] = now + HELD_BACK_S
        return now >= self._name_at[partition]

    def name(self, partition: TopicPartition, end: int) -> None:
        """Log that the partition is held back."""
        now = time.monotonic()
        offset, since = self._since[partition]
        self._name_at[partition] = now + HELD_BACK_S
        logger.warning(
            "topic %s, partition %d: reading has waited at offset %d for %.0f s, and the log goes on to offset %d. %s",
            partition.topic,
            partition.partition,
            offset,
            now - since,
            end,
            ADVICE,
        )


class OpenTransactionMonitor:
    """Compares a reader's positions with the ends of its partitions. Not thread-safe."""

    def __init__(self, ends: OffsetReader) -> None:
        self._ends = ends
        self._look_at = 0.0
        self._held_back = HeldBackPartitions()

    def check(
        self, consumer: KafkaConsumer, partitions: Collection[TopicPartition], position: Callable[[TopicPartition], int]
    ) -> None:
        """Log a warning for each of ``partitions`` that has been held back for long. Call it when nothing comes."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        for partition in partitions:
            at, end = position(partition), consumer.highwater(partition)
            if end is not None and self._held_back.note(partition, at, end):
                # Or does it wait for another reason, such as a broker that is away?
                with suppress(BrokerError), asking_once():
                    if self._ends.ask([partition], _ASK_S)[partition] <= at:
                        self._held_back.name(partition, end)


def held_back(
    config: Config, client_id: str, partitions: Collection[EntityPartition]
) -> dict[TopicPartition, tuple[int, int]]:
    """Return where reading ends and where the log ends, of each partition in which a transaction is open.

    Raises BrokerError if the broker does not answer.
    """
    asked = [TopicPartition(topic_name(config, at.entity), at.partition) for at in partitions]
    # In this order: what is written and committed between the two questions must not look as if it were held back.
    written = _latest(config, client_id, asked, "read_uncommitted")
    readable = _latest(config, client_id, asked, "read_committed")
    return {at: (readable[at], written[at]) for at in asked if readable[at] < written[at]}


def _latest(
    config: Config, client_id: str, partitions: Collection[TopicPartition], isolation_level: str
) -> dict[TopicPartition, int]:
    consumer = make_consumer(config, client_id, isolation_level=isolation_level)
    try:
        consumer.assign(list(partitions))
        return ask_offsets(consumer.end_offsets, partitions)
    finally:
        consumer.close()
