"""What a compacted topic holds for some of its partitions, read to the end."""

from __future__ import annotations

import time
from collections.abc import Collection

from kafka import TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.topics import topic_name

OUTAGE_LIMIT_S = 60.0
"""Without any progress; there is no bound on how much there may be to read."""


def read_changelog(
    config: Config, client_id: str, entity: str, partitions: Collection[int]
) -> dict[int, dict[bytes, bytes]]:
    """The last value of every key that was not deleted, by partition.

    Raises BrokerError when the broker does not answer.
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
        deadline = time.monotonic() + OUTAGE_LIMIT_S
        # Positions, not offsets of events: compaction may have removed the last ones.
        while any((consumer.position(partition) or 0) < targets[partition] for partition in wanted):
            batches = consumer.poll(timeout_ms=200, max_records=5000)
            for partition, messages in batches.items():
                held = state[partition.partition]
                for message in messages:
                    if message.value is None:
                        held.pop(message.key, None)
                    else:
                        held[message.key] = message.value
            if batches:
                deadline = time.monotonic() + OUTAGE_LIMIT_S
            elif time.monotonic() > deadline:
                raise BrokerError(f"{wanted[0].topic} could not be read to its end within {OUTAGE_LIMIT_S:g} s")
    except KafkaError as error:
        raise BrokerError(f"cannot read {wanted[0].topic}: {error}") from error
    finally:
        consumer.close()
        ends.close()
    return state


def positions(
    config: Config, client_id: str, group: str, entities: Collection[str], partitions: Collection[int]
) -> dict[tuple[str, int], tuple[int, int]]:
    """What ``group`` has committed of each (entity, partition), 0 if nothing, and where that ends now.

    Raises BrokerError when the broker does not answer.
    """
    places = {TopicPartition(topic_name(config, e), n): (e, n) for e in entities for n in partitions}
    if not places:
        return {}
    consumer, ends = make_consumer(config, client_id, group), OffsetReader(config, client_id)
    try:
        return {places[at]: (consumer.committed(at) or 0, end) for at, end in ends.ask(list(places)).items()}
    except KafkaError as error:
        raise BrokerError(f"cannot read committed positions: {error}") from error
    finally:
        consumer.close()
        ends.close()
