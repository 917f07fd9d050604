"""Builds the CloudEvents headers (binary mode) of events. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.events import (
    Experience,
    Member,
    Record,
    Reward,
    ScoredExperience,
    Task,
    TrainingStep,
    Waiting,
    WeightVersion,
)
from schemas.framing import schema_headers
from schemas.sessions import Session, Turn

CONTENT_TYPE = b"application/avro"


def event_id(record: Record) -> str:
    """Return the event's id: the same event published twice has the same."""
    match record:
        case Task():
            return record.group_id
        case Experience():
            return record.experience_id
        case Reward():
            return f"{record.experience_id}/{record.source}/{record.revision}"
        case ScoredExperience():
            return f"{record.experience.experience_id}@{record.release_id}"
        case WeightVersion():
            return f"{record.model}/{record.version}"
        case Member():
            return f"{record.member_id}@{record.heartbeat_at}"
        case TrainingStep():
            return f"{record.model}/{record.kind}/{record.step}@{record.created_at}"
        case Waiting():
            return f"{record.group_id}@{record.since}"
        case Turn():
            return f"{record.session_id}/{record.number}@{record.created_at}"
        case Session():
            return f"{record.session_id}@{record.revision}"
    raise TypeError(f"{type(record).__name__} is not an event")


def cloud_event_headers(record: Record, source: str, now_ms: int) -> list[tuple[str, bytes | None]]:
    """Return ``ce_*``, ``content-type`` and, for readers of an earlier release, a later schema.

    ``now_ms`` is Unix time.
    """
    time = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id(record).encode()),
        ("ce_source", source.encode()),
        ("ce_type", f"stream_rft.{type(record).__name__}".encode()),
        ("ce_time", time.encode()),
        ("content-type", CONTENT_TYPE),
        *schema_headers(type(record).__name__),
    ]
