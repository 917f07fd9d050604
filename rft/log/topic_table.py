"""Reads the state of the run's topics: events, sizes and lags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import IncompatibleBrokerVersion, KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_admin, make_consumer
from rft.log.offset_queries import OffsetReader, ask_offsets
from rft.log.topics import ENTITIES, topic_name


@dataclass(frozen=True)
class TopicRow:
    """The state of one topic now."""

    entity: str
    topic: str
    exists: bool
    partitions: int = 0
    begin: int = 0
    """Sum of the first offsets that the log still holds."""
    end: int = 0
    """Sum of the offsets after the last events."""
    size_bytes: int | None = None
    """On the broker's disks, replicas included; None where the broker does not say (the embedded one)."""
    lags: Mapping[str, int] = field(default_factory=dict)
    """Events that each consumer group has yet to commit."""

    @property
    def events(self) -> int:
        """Events on the log (an upper bound where compaction leaves gaps)."""
        return self.end - self.begin


def topic_table(config: Config) -> list[TopicRow]:
    """Return a row for each topic of the design, existing or not. Raises BrokerError if the broker is unreachable."""
    admin = make_admin(config, "topics")
    consumer = make_consumer(config, "topics")
    ends = OffsetReader(config, "topics")
    try:
        names = {topic_name(config, entity): entity for entity in ENTITIES}
        described = {topic["name"]: topic for topic in admin.describe_topics(list(names))}
        partitions = [
            TopicPartition(name, partition["partition_index"])
            for name in names
            for partition in described.get(name, {}).get("partitions", [])
        ]
        begin = ask_offsets(consumer.beginning_offsets, partitions) if partitions else {}
        end = ends.ask(partitions) if partitions else {}
        sizes = _sizes(admin)
        groups = _committed(admin, set(partitions))
        return [_row(name, entity, begin, end, sizes, groups) for name, entity in names.items()]
    except KafkaError as error:
        raise BrokerError(f"cannot read the state of {config.log.namespace}.*: {error}") from error
    finally:
        admin.close()
        consumer.close()
        ends.close()


def _row(
    name: str,
    entity: str,
    begin: Mapping[TopicPartition, int],
    end: Mapping[TopicPartition, int],
    sizes: Mapping[str, int] | None,
    groups: Mapping[str, Mapping[TopicPartition, int]],
) -> TopicRow:
    own = [partition for partition in end if partition.topic == name]
    if not own:
        return TopicRow(entity, name, exists=False)
    lags = {
        group: sum(max(0, end[p] - max(committed.get(p, 0), begin[p])) for p in own)
        for group, committed in groups.items()
        if any(p.topic == name for p in committed)
    }
    return TopicRow(
        entity,
        name,
        exists=True,
        partitions=len(own),
        begin=sum(begin[p] for p in own),
        end=sum(end[p] for p in own),
        size_bytes=None if sizes is None else sizes.get(name, 0),
        lags=dict(sorted(lags.items())),
    )


def _sizes(admin: KafkaAdminClient) -> dict[str, int] | None:
    """Return the bytes on disk by topic; None if the broker does not say."""
    try:
        brokers = admin.describe_log_dirs()
    except IncompatibleBrokerVersion:
        return None
    sizes: dict[str, int] = {}
    folders = [folder for broker in brokers for folder in broker["log_dirs"]]
    if not folders or any(folder["error_code"] for folder in folders):
        return None
    for topic in (topic for folder in folders for topic in folder["topics"]):
        size = sum(partition["partition_size"] for partition in topic["partitions"])
        sizes[topic["name"]] = sizes.get(topic["name"], 0) + size
    return sizes


def _committed(admin: KafkaAdminClient, ours: set[TopicPartition]) -> dict[str, dict[TopicPartition, int]]:
    """Return the committed offsets in our topics, by consumer group."""
    groups = [group["group_id"] for group in admin.list_groups() if group["protocol_type"] in ("consumer", "")]
    if not groups:
        return {}
    committed = {}
    for group, offsets in admin.list_group_offsets(groups).items():
        own = {p: offset.offset for p, offset in offsets.items() if p in ours and offset.offset >= 0}
        if own:
            committed[group] = own
    return committed
