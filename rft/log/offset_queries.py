"""Asks the broker for begin, end and committed offsets.

The end of a partition is its last stable offset: no one reads beyond it while a transaction is open. A broker answers
ListOffsets with it, except the embedded one, which answers with the base offset of the last batch plus one, however
many events that batch holds. A reader that believed it would think that it had caught up, and miss the rest. So
:class:`OffsetReader` reads on from the answer: where a fetch ends is right on every broker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import OutageError
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition
from rft.log.outages import broker_error, is_outage, wait_out
from rft.log.topics import topic_name
from rft.retry import Backoff, Deadline, retry

_WHOLE_FETCH = 1_000_000
"""More than the events that one fetch returns, so that the position lies after all of them."""
_ANSWER_MS = 10_000
AskOffsets = Callable[..., dict[TopicPartition, int]]
"""``beginning_offsets`` or ``end_offsets`` of a kafka-python consumer."""


def ask_offsets(
    ask: AskOffsets, partitions: Collection[TopicPartition], timeout_s: float = 10.0
) -> dict[TopicPartition, int]:
    """Ask again until there is an answer. Raises OutageError if there is none in time, BrokerError if it is a refusal.

    Does not wait for a broker that is away: :func:`rft.log.outages.wait_out` does, also in a role.
    """
    deadline = Deadline(timeout_s)
    try:
        return retry(
            lambda: ask(list(partitions), timeout_ms=int(max(deadline.remaining(), 0.1) * 1000)),
            # kafka-python raises KeyError for partitions whose leader it has not learned yet, then looks for them.
            retryable=lambda error: isinstance(error, KeyError) or is_outage(error),
            backoff=Backoff(0.05),
            deadline=deadline,
        )
    except KeyError as error:
        raise OutageError(f"no leader is known for {error}") from None
    except KafkaError as error:
        raise broker_error("cannot read offsets", error) from error


class OffsetReader:
    """Asks for the ends of partitions over a connection of its own, which it opens when first needed."""

    def __init__(self, config: Config, client_id: str) -> None:
        self._config = config
        self._client_id = f"{client_id}-ends"
        self._consumer: KafkaConsumer | None = None
        self._found: dict[TopicPartition, int] = {}
        """Ends as last found. They only grow."""

    def ask(self, partitions: Collection[TopicPartition], timeout_s: float = 10.0) -> dict[TopicPartition, int]:
        """Return the offset after the last event of each partition that can be read.

        Raises BrokerError if there is no answer in time. In a role, waits for a broker that is away.
        """
        return wait_out("cannot read end offsets", lambda: self._ask_or_renew(partitions, timeout_s))

    def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _ask_or_renew(self, partitions: Collection[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        try:
            return self._ask_once(partitions, timeout_s)
        except OutageError:
            # A client that does not poll may keep an outdated picture of the cluster, and ask former leaders for good.
            with contextlib.suppress(KafkaError):
                self.close()
            raise

    def _ask_once(self, partitions: Collection[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        if self._consumer is None:
            self._consumer = make_consumer(
                self._config,
                self._client_id,
                fetch_max_wait_ms=20,
                max_partition_fetch_bytes=1,
                # An incremental session answers nothing for a partition whose high watermark it has already sent.
                enable_incremental_fetch_sessions=False,
            )
        try:
            # All of them, the empty ones too: kafka-python refreshes its metadata for what is assigned, and fails over
            # partitions whose leader it has forgotten.
            self._consumer.assign(list(partitions))
            latest = ask_offsets(self._consumer.end_offsets, partitions, timeout_s)
            written = {partition: offset for partition, offset in latest.items() if offset > 0}
            self._consumer.pause(*(latest.keys() - written.keys()))
            self._consumer.resume(*written)
            ends = latest | self._read_on(self._consumer, written, timeout_s)
        except KafkaError as error:
            raise broker_error("cannot read end offsets", error) from error
        self._found |= ends
        return ends

    def _read_on(
        self, consumer: KafkaConsumer, latest: Mapping[TopicPartition, int], timeout_s: float
    ) -> dict[TopicPartition, int]:
        for partition, offset in latest.items():
            consumer.seek(partition, offset)
        deadline = Deadline(timeout_s)
        found: dict[TopicPartition, int] = {}
        while len(found) < len(latest):
            if deadline.passed:
                raise OutageError(f"no end offset of {', '.join(map(str, latest.keys() - found.keys()))}")
            consumer.poll(timeout_ms=20, max_records=_WHOLE_FETCH)
            for partition, offset in latest.items():
                # The high watermark tells that a fetch was answered. One left over from an earlier fetch is lower than
                # LATEST if anything was written since; if not, the end is the one that was found then.
                mark = consumer.highwater(partition)
                if mark is not None and mark >= offset:
                    reached = int(consumer.position(partition) or 0)
                    found[partition] = max(offset, reached, self._found.get(partition, 0))
        return found


def committed_offsets(
    config: Config, client_id: str, group: str, partitions: Collection[EntityPartition]
) -> dict[EntityPartition, int]:
    """Return what a consumer group has committed of each partition; partitions without a commit are left out.

    Raises BrokerError when the broker does not answer.
    """
    failure = f"cannot read the committed offsets of {group}"

    def ask() -> dict[EntityPartition, int | None]:
        consumer = make_consumer(config, client_id, group)
        try:
            return {
                partition: consumer.committed(_topic_partition(config, partition), timeout_ms=_ANSWER_MS)
                for partition in partitions
            }
        except KafkaError as error:
            raise broker_error(failure, error) from error
        finally:
            consumer.close()

    found = wait_out(failure, ask)
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
