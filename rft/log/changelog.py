"""Reads some partitions of a compacted topic to their ends."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kafka import TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.log.clients import make_consumer
from rft.log.coordinates import EntityPartition
from rft.log.events import Event
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.outages import OUTAGE_LIMIT_S, ProgressWatch, broker_error, wait_out
from rft.log.reader import to_event
from rft.log.registry import schema_lookup
from rft.log.topics import topic_name

MAX_BYTES = 2**30
"""A state may be larger than an event of another topic."""

MakeTake = Callable[[], Callable[[Event], None]]


def read_changelog(
    config: Config, client_id: str, entity: str, partitions: Collection[int]
) -> dict[int, dict[bytes, bytes]]:
    """Return the last value of every key that was not deleted, by partition.

    Raises as :func:`read_changelog_events` does.
    """
    state: dict[int, dict[bytes, bytes]] = {}

    def begin() -> Callable[[Event], None]:
        state.clear()
        state.update({number: {} for number in partitions})
        return take

    def take(event: Event) -> None:
        values, key = state[event.partition], event.key or b""
        if event.value is None:
            values.pop(key, None)
        else:
            values[key] = event.value

    read_changelog_events(config, client_id, entity, partitions, begin)
    return state


def read_changelog_events(
    config: Config, client_id: str, entity: str, partitions: Collection[int], begin: MakeTake
) -> None:
    """Hand all events of some partitions to the function that ``begin`` returns, each partition in order.

    There may be any amount to read; the limit is on the time without progress. After an outage everything is read
    again, and ``begin`` is called again. Raises BrokerError after that time.
    """
    failure = f"cannot read {topic_name(config, entity)}"
    wait_out(failure, lambda: _read_once(config, client_id, entity, partitions, begin()))


def _read_once(
    config: Config, client_id: str, entity: str, partitions: Collection[int], take: Callable[[Event], None]
) -> None:
    wanted = [TopicPartition(topic_name(config, entity), number) for number in partitions]
    if not wanted:
        return
    writer_schemas = schema_lookup(config)
    consumer, ends = make_consumer(config, client_id), OffsetReader(config, client_id)
    try:
        targets = ends.ask(wanted)
        begins = ask_offsets(consumer.beginning_offsets, wanted)
        consumer.assign(wanted)
        for partition in wanted:
            consumer.seek(partition, begins[partition])
        watch = ProgressWatch(
            OUTAGE_LIMIT_S,
            lambda: ends.ask(wanted),
            lambda: f"{wanted[0].topic} could not be read to its end within {OUTAGE_LIMIT_S:g} s",
        )
        # Positions, not offsets of events: compaction may have removed the last ones.
        while any((consumer.position(partition) or 0) < targets[partition] for partition in wanted):
            batches = consumer.poll(timeout_ms=200, max_records=5000)
            for partition, messages in batches.items():
                at = EntityPartition(entity, partition.partition)
                for message in messages:
                    take(to_event(at, message, MAX_BYTES, writer_schemas))
            if batches:
                watch.moved()
            watch.check()
    except KafkaError as error:
        raise broker_error(f"cannot read {wanted[0].topic}", error) from error
    finally:
        consumer.close()
        ends.close()
