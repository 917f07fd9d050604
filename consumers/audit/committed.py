"""How far the processors say that they have resolved ``experiences``."""

from __future__ import annotations

from kafka import TopicPartition
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError
from rft.log.clients import make_consumer
from rft.log.topics import topic_name


def committed_offsets(config: Config) -> dict[int, int]:
    """Committed offset of each partition of ``experiences``; partitions without one are left out. BrokerError."""
    topic = topic_name(config, "experiences")
    consumer = make_consumer(config, "audit", group=f"{config.log.namespace}.processors")
    try:
        found = {
            partition: consumer.committed(TopicPartition(topic, partition))
            for partition in sorted(consumer.partitions_for_topic(topic) or ())
        }
    except KafkaError as error:
        raise BrokerError(f"cannot read the processors' committed offsets: {error}") from error
    finally:
        consumer.close()
    return {partition: int(offset) for partition, offset in found.items() if offset is not None}
