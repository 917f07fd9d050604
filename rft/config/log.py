"""``[log]``: the topics and their retention."""

from __future__ import annotations

from pydantic import Field, model_validator

from rft.config.section import Name, Section


class LogConfig(Section):
    namespace: Name = "rft"
    """Prefix of all topics, ``<namespace>.<entity>.v1``, so that runs and teams can share a cluster."""
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
