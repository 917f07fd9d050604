"""Reads some partitions of a compacted topic to their ends."""

from __future__ import annotations

from collections.abc import Collection

from kafka import TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.topics import topic_name
from rft.retry import OUTAGE_LIMIT_S, Deadline


def read_changelog(
    config: Config, client_id: str, entity: str, partitions: Collection[int]
) -> dict[int, dict[bytes, bytes]]:
    """Return the last value of every key that was not deleted, by partition.

    There may be any amount to read; the limit is on the time without progress. Raises BrokerError after that.
    """
    wanted = [TopicPartition(topic_name(config, entity), number) for number in partitions]
    state: dict[int, dict[bytes, bytes]] = {number: {} for number in partitions}
    if not wanted:
        return state
    consumer, ends = make_consumer(config, client_id), OffsetReader(config, client_id)
    try:
        targets = ends.ask(wanted)
        begins = ask_offsets(consumer.beginning_offsets, wanted)
        consumer.assign(wanted)
        for partition in wanted:
            consumer.seek(partition, begins[partition])
        deadline = Deadline(OUTAGE_LIMIT_S)
        # Positions, not offsets of events: compaction may have removed the last ones.
        while any((consumer.position(partition) or 0) < targets[partition] for partition in wanted):
            batches = consumer.poll(timeout_ms=200, max_records=5000)
            for partition, messages in batches.items():
                values = state[partition.partition]
                for message in messages:
                    if message.value is None:
                        values.pop(message.key, None)
                    else:
                        values[message.key] = message.value
            if batches:
                deadline = Deadline(OUTAGE_LIMIT_S)
            elif deadline.passed:
                raise BrokerError(f"{wanted[0].topic} could not be read to its end within {OUTAGE_LIMIT_S:g} s")
    except KafkaError as error:
        raise BrokerError(f"cannot read {wanted[0].topic}: {error}") from error
    finally:
        consumer.close()
        ends.close()
    return state
