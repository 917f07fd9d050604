"""Checks settings of Kafka topics that are passed on to the broker as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from rft.config.section import EntityName

OURS = {
    "cleanup.policy": "the design decides which topics are compacted; it cannot be changed",
    "retention.ms": "set log.experience_retention_hours or log.audit_retention_hours",
    "min.insync.replicas": "acknowledged events survive the loss of a broker because of it; set "
    "log.min_insync_replicas",
    "unclean.leader.election.enable": "with it, acknowledged events could be lost; it is always false",
    "message.timestamp.type": "deadlines and the check of producers' clocks need the producers' own timestamps; leave "
    "it at CreateTime",
    "max.message.bytes": "events that are too large must still arrive, to become dead letters; set "
    "log.max_message_bytes",
}
"""Settings that cannot be passed on, and the reason with the key to set instead."""


def _checked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        str(name): _texts(inner, f"{name}: ") if name in get_args(EntityName) else _text(str(name), inner)
        for name, inner in value.items()
    }


def _texts(settings: Any, where: str) -> dict[str, str]:
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where}is a topic, so it takes a table of settings, such as {{ 'segment.ms' = '3600000' }}")
    return {str(name): _text(str(name), value, where) for name, value in settings.items()}


def _text(name: str, value: Any, where: str = "") -> str:
    if name in OURS:
        raise ValueError(f"{where}{name} cannot be set here: {OURS[name]}")
    if isinstance(value, Mapping):
        topics = ", ".join(get_args(EntityName))
        raise ValueError(f"{where}{name} is no topic; topics are {topics}. Put a setting's name with dots in quotes")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"{where}{name} = {value!r}: write the value as Kafka does, in quotes")


TopicSettings = Annotated[dict[str, str | dict[str, str]], BeforeValidator(_checked)]
"""Settings by name for all topics, and tables of settings by entity for single ones."""

TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
"""What Kafka allows as the name of a topic."""
