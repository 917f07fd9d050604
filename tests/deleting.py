"""Retention, by hand: what it would delete some day is deleted at once. Apache Kafka only."""

from __future__ import annotations

from kafka import TopicPartition

from rft.config import Config
from rft.log.clients import make_admin
from rft.log.topics import topic_name


def delete_before(config: Config, entity: str, offset: int, partition: int = 0) -> None:
    """The log of this partition begins at ``offset`` from now on."""
    admin = make_admin(config, "test")
    try:
        admin.delete_records({TopicPartition(topic_name(config, entity), partition): offset})
    finally:
        admin.close()


def skipping(config: Config) -> Config:
    """The same, with ``log.skip_deleted``."""
    return config.model_copy(update={"log": config.log.model_copy(update={"skip_deleted": True})})
