"""Asks the broker for begin, end and committed offsets.

The embedded broker answers ListOffsets(LATEST) with the base offset of the last batch plus one, however many events
that batch holds. A reader that believed it would think that it had caught up, and miss the rest. The high watermark of
a fetch is right on every broker, so :class:`OffsetReader` asks for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import is_retriable, make_consumer
from rft.log.coordinates import EntityPartition
from rft.log.topics import topic_name
from rft.retry import Backoff, Deadline, retry

AskOffsets = Callable[..., dict[TopicPartition, int]]
"""``beginning_offsets`` or ``end_offsets`` of a kafka-python consumer."""


def ask_offsets(
    ask: AskOffsets, partitions: Collection[TopicPartition], timeout_s: float = 10.0
) -> dict[TopicPartition, int]:
    """Ask again until there is an answer. Raises BrokerError if there is none in time."""
    deadline = Deadline(timeout_s)
    try:
        return retry(
            lambda: ask(list(partitions), timeout_ms=int(max(deadline.remaining(), 0.1) * 1000)),
            # kafka-python raises KeyError for partitions whose leader it has not learned yet, then looks for them.
            retryable=lambda error: isinstance(error, KeyError) or is_retriable(error),
            backoff=Backoff(0.05),
            deadline=deadline,
        )
    except KeyError as error:
        raise BrokerError(f"no leader is known for {error}") from None
    except KafkaError as error:
        raise BrokerError(f"cannot read offsets: {error}") from error


class OffsetReader:
    """Asks for the ends of partitions over a connection of its own, which it opens when first needed."""

    def __init__(self, config: Config, client_id: str) -> None:
        self._config = config
        self._client_id = f"{client_id}-ends"
        self._consumer: KafkaConsumer | None = None

    def ask(self, partitions: Collection[TopicPartition], timeout_s: float = 10.0) -> dict[TopicPartition, int]:
        """Return the offset after the last event of each partition.

        Raises BrokerError if there is no answer in time.
        """
        if self._consumer is None:
            self._consumer = make_consumer(
                self._config, self._client_id, fetch_max_wait_ms=20, max_partition_fetch_bytes=1
            )
        try:
            # All of them, the empty ones too: kafka-python refreshes its metadata for what is assigned, and fails over
            # partitions whose leader it has forgotten.
            self._consumer.assign(list(partitions))
            latest = ask_offsets(self._consumer.end_offsets, partitions, timeout_s)
            written = {partition: offset for partition, offset in latest.items() if offset > 0}
            self._consumer.pause(*(latest.keys() - written.keys()))
            self._consumer.resume(*written)
            return latest | self._high_watermarks(self._consumer, written, timeout_s)
        except KafkaError as error:
            raise BrokerError(f"cannot read end offsets: {error}") from error

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()

    def _high_watermarks(
        self, consumer: KafkaConsumer, latest: Mapping[TopicPartition, int], timeout_s: float
    ) -> dict[TopicPartition, int]:
        for partition, offset in latest.items():
            consumer.seek(partition, offset)
        deadline = Deadline(timeout_s)
        found: dict[TopicPartition, int] = {}
        while len(found) < len(latest):
            if deadline.passed:
                raise BrokerError(f"no high watermark of {', '.join(map(str, latest.keys() - found.keys()))}")
            consumer.poll(timeout_ms=20)
            for partition, offset in latest.items():
                mark = consumer.highwater(partition)
                # One left over from an earlier fetch is lower than LATEST if anything was written since.
                if mark is not None and mark >= offset:
                    found[partition] = mark
        return found


def committed_offsets(
    config: Config, client_id: str, group: str, partitions: Collection[EntityPartition]
) -> dict[EntityPartition, int]:
    """Return what a consumer group has committed of each partition; partitions without a commit are left out.

    Raises BrokerError when the broker does not answer.
    """
    consumer = make_consumer(config, client_id, group)
    try:
        found = {partition: consumer.committed(_topic_partition(config, partition)) for partition in partitions}
    except KafkaError as error:
        raise BrokerError(f"cannot read the committed offsets of {group}: {error}") from error
    finally:
        consumer.close()
    return {partition: int(offset) for partition, offset in found.items() if offset is not None}


def end_offsets(config: Config, client_id: str, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
    """Return the offset after the last event of each partition. Raises BrokerError when the broker does not answer."""
    by_topic = {_topic_partition(config, partition): partition for partition in partitions}
    reader = OffsetReader(config, client_id)
    try:
        return {by_topic[at]: offset for at, offset in reader.ask(by_topic).items()} if by_topic else {}
    finally:
        reader.close()


def _topic_partition(config: Config, partition: EntityPartition) -> TopicPartition:
    return TopicPartition(topic_name(config, partition.entity), partition.partition)
