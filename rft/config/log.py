"""``[log]``: the topics and their retention."""

from __future__ import annotations

from typing import Literal, cast, get_args

from pydantic import Field, model_validator

from rft.config.section import EntityName, Name, Section
from rft.config.topic_settings import TopicName, TopicSettings


class LogConfig(Section):
    namespace: Name = "rft"
    """Prefix of all topics, ``<namespace>.<entity>.v1``, so that runs and teams can share a cluster. Consumer groups
    and client ids begin with it, too."""
    topics: dict[EntityName, TopicName] = {}
    """Names of single topics by entity, for clusters with naming rules: ``experiences = "team-a.rft-experiences"``. The
    others are named by ``namespace``."""
    manage_topics: bool = True
    """Create missing topics. If false, nothing is created or altered: each start and `rft doctor` check the topics, and
    `rft topics CONFIG --emit` prints the definitions for those who create them."""
    topic_settings: TopicSettings = {}
    """Further settings of topics, as Kafka names them, passed on when topics are created and checked afterward:
    ``"segment.bytes" = "268435456"`` for all topics, or in a table of an entity for one of them. Settings that our
    guarantees depend on have keys of their own."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """How all our producers compress batches. Readers read every codec, whatever is set here. With ``zstd``,
    experiences take 55 % of the bytes on wire and disk, for 0.1 ms of CPU time in the producer of 1,024 tokens; with
    ``lz4`` 70 %, for a third of that time."""
    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions of keyed topics. At most this many explorers, and this many processors, can work at once."""
    replication_factor: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; 3 in a production cluster."""
    min_insync_replicas: int | None = Field(default=None, ge=1, le=9)
    """Copies that must hold an event before its producer gets the acknowledgement, ``min.insync.replicas`` of all
    topics. By default half of ``replication_factor``, rounded up: 2 of 3, so that work goes on while one broker is
    away, and the loss of one broker's disk loses nothing."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Size of the largest event that is written or accepted. A larger one is a decode error. Topics are created with
    room for twice as much, so that larger events of others become dead letters. Existing topics need room for this
    much and 64 KiB. Lower it where the cluster allows less."""
    experience_retention_hours: float = Field(default=24 * 14, gt=0)
    """Retention of experiences and rewards. It must be longer than the longest reward delay."""
    audit_retention_hours: float = Field(default=24 * 365, gt=0)
    """Retention of steps and dead letters."""
    skip_deleted: bool = False
    """Continue, with a warning, when retention has deleted the events that an explorer, a processor or a trainer would
    read next. By default the role stops and names the range. Events that redoing a step needs are never skipped."""
    accept_copy: bool = False
    """Let a trainer continue from its checkpoint on topics that have other topic ids than those that it was made with.
    Set it only if they are a copy with the same offsets, as a linked cluster has."""
    session_timeout_ms: int = Field(default=6000, ge=6000, le=300_000)
    """Session timeout of consumer groups: how soon the partitions of a dead process move to another."""

    @model_validator(mode="after")
    def _names_differ(self) -> LogConfig:
        entities: dict[str, str] = {}
        for entity in get_args(EntityName):
            name = self.topic(entity)
            if name in entities:
                raise ValueError(f"topics: {entities[name]} and {entity} have the same name, {name}; give each its own")
            entities[name] = entity
        return self

    def topic(self, entity: str) -> str:
        """Return the name of an entity's topic."""
        return self.topics.get(cast("EntityName", entity)) or default_topic(self.namespace, entity)

    def settings_of(self, entity: str) -> dict[str, str]:
        """Return the passed-on settings of an entity's topic."""
        shared = {name: value for name, value in self.topic_settings.items() if isinstance(value, str)}
        own = self.topic_settings.get(entity, {})
        return {**shared, **(own if isinstance(own, dict) else {})}

    @property
    def copies_needed(self) -> int:
        """``min.insync.replicas`` of the topics."""
        return self.min_insync_replicas or (self.replication_factor + 1) // 2

    @model_validator(mode="after")
    def _enough_copies(self) -> LogConfig:
        if self.copies_needed > self.replication_factor:
            raise ValueError(
                f"min_insync_replicas is {self.min_insync_replicas}, but replication_factor is only "
                f"{self.replication_factor}: nothing could be written"
            )
        return self


def default_topic(namespace: str, entity: str) -> str:
    """Return the name of an entity's topic, unless ``log.topics`` gives it another."""
    return f"{namespace}.{entity}.v1"
