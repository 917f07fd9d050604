"""Deletes the beginning of a topic at once, as retention would later. Apache Kafka only."""

from __future__ import annotations

from kafka import TopicPartition

from rft.config import Config
from rft.log.clients import make_admin
from rft.log.topics import topic_name


def delete_before(config: Config, entity: str, offset: int, partition: int = 0) -> None:
    """Let the log of this partition begin at ``offset``."""
    admin = make_admin(config, "test")
    try:
        admin.delete_records({TopicPartition(topic_name(config, entity), partition): offset})
    finally:
        admin.close()


def skipping(config: Config) -> Config:
    """Return the configuration with ``log.skip_deleted``."""
    return config.model_copy(update={"log": config.log.model_copy(update={"skip_deleted": True})})
