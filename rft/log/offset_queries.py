"""Where each partition really ends.

The embedded broker answers ListOffsets(LATEST) with the base offset of the last batch plus one, however many events
that batch holds: whoever believes it thinks that they have caught up, and misses the rest. The high watermark of a
fetch is right on every broker, so that is what we ask for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer


def ask_offsets(
    ask: Callable[..., dict[TopicPartition, int]], partitions: Collection[TopicPartition], timeout_s: float = 10.0
) -> dict[TopicPartition, int]:
    """``ask`` is a consumer's ``beginning_offsets`` or ``end_offsets``. BrokerError if there is no answer in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        remaining = max(deadline - time.monotonic(), 0.1)
        try:
            return ask(list(partitions), timeout_ms=int(remaining * 1000))
        except KeyError as error:
            # kafka-python leaves out partitions whose leader it has not learned yet, then looks for them.
            if time.monotonic() > deadline:
                raise BrokerError(f"no leader is known for {error}") from None
            time.sleep(0.05)
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise BrokerError(f"cannot read offsets: {error}") from error
            time.sleep(0.1)


class OffsetReader:
    """Asks for the ends of partitions, with a connection of its own that it opens when first needed."""

    def __init__(self, config: Config, client_id: str) -> None:
        self._config = config
        self._client_id = f"{client_id}-ends"
        self._consumer: KafkaConsumer | None = None

    def ask(self, partitions: Collection[TopicPartition], timeout_s: float = 10.0) -> dict[TopicPartition, int]:
        """The offset after the last event of each partition, as of now. BrokerError if there is no answer in time."""
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

    def _high_watermarks(
        self, consumer: KafkaConsumer, latest: dict[TopicPartition, int], timeout_s: float
    ) -> dict[TopicPartition, int]:
        for partition, offset in latest.items():
            consumer.seek(partition, offset)
        deadline = time.monotonic() + timeout_s
        found: dict[TopicPartition, int] = {}
        while len(found) < len(latest):
            if time.monotonic() > deadline:
                raise BrokerError(f"no high watermark of {', '.join(map(str, latest.keys() - found.keys()))}")
            consumer.poll(timeout_ms=20)
            for partition, offset in latest.items():
                mark = consumer.highwater(partition)
                # One left over from an earlier fetch is lower than LATEST if anything was written since.
                if mark is not None and mark >= offset:
                    found[partition] = mark
        return found

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()
