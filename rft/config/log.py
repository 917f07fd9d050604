"""``[log]``: the topics and their retention."""

from __future__ import annotations

from pydantic import Field

from rft.config.section import Name, Section


class LogConfig(Section):
    namespace: Name = "rft"
    """Prefix of all topics, ``<namespace>.<entity>.v1``, so that runs and teams can share a cluster."""
    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions of keyed topics. At most this many explorers, and this many processors, can work at once."""
    replication_factor: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; 3 in a production cluster."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Size of the largest event that is written or accepted. A larger one is a decode error."""
    experience_retention_hours: float = Field(default=24 * 14, gt=0)
    """Retention of experiences and rewards. It must be longer than the longest reward delay."""
    audit_retention_hours: float = Field(default=24 * 365, gt=0)
    """Retention of steps and dead letters."""
    skip_deleted: bool = False
    """Continue, with a warning, when retention has deleted the events that an explorer, a processor or a trainer would
    read next. By default the role stops and names the range. Events that redoing a step needs are never skipped."""
    session_timeout_ms: int = Field(default=6000, ge=6000, le=300_000)
    """Session timeout of consumer groups: how soon the partitions of a dead process move to another."""
