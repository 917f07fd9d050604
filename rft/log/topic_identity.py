"""Notices that a topic is not the one that a run began with: created again, deleted, or with more partitions.

Kafka gives each topic an id when it creates it. After a deletion and a new creation the name is the same and the id is
not: all offsets that anyone has kept mean other events, or none. Brokers without ids answer with an empty one, and then
only partitions can be compared.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from rft.config import Config
from rft.errors import BrokerError, OtherLogError, TopicChangedError
from rft.log.clients import make_admin
from rft.log.topics import ENTITIES, NEW_NAMESPACE, partition_problems, topic_name

_NO_ID = UUID(int=0)
_UNKNOWN_TOPIC = 3


class TopicState(NamedTuple):
    """What identifies a topic."""

    topic_id: str
    """Empty where the broker has none."""
    partitions: int


def topic_states(admin: KafkaAdminClient, config: Config) -> dict[str, TopicState | None]:
    """Return the state of each entity's topic; None if it does not exist. What the broker cannot say is left out.

    Raises KafkaError.
    """
    entities = {topic_name(config, entity): entity for entity in ENTITIES}
    found: dict[str, TopicState | None] = {}
    for topic in admin.describe_topics(list(entities)):
        entity = entities[topic["name"]]
        if topic["error_code"] == 0 and topic["partitions"]:
            found[entity] = TopicState(_as_text(topic.get("topic_id")), len(topic["partitions"]))
        elif topic["error_code"] == _UNKNOWN_TOPIC:
            found[entity] = None
    return found


def read_topic_ids(config: Config) -> dict[str, str]:
    """Return the topic id of each entity that has one. Raises BrokerError."""
    admin = make_admin(config, "topic-ids")
    try:
        states = topic_states(admin, config)
    except KafkaError as error:
        raise BrokerError(f"cannot read the topics {config.log.namespace}.*: {error}") from error
    finally:
        admin.close()
    return {entity: state.topic_id for entity, state in states.items() if state is not None and state.topic_id}


def check_same_log(config: Config, before: Mapping[str, str], now: Mapping[str, str], checkpoint: Path) -> None:
    """Check that topic ids are those that the checkpoint was made with. What has no id, then or now, is not compared.

    Raises OtherLogError, unless ``log.accept_copy``.
    """
    if config.log.accept_copy:
        return
    others = [entity for entity in before if before[entity] and now.get(entity) and before[entity] != now[entity]]
    if others:
        names = ", ".join(topic_name(config, entity) for entity in others)
        ids = ", ".join(f"{entity} {before[entity]} then, {now[entity]} now" for entity in others)
        raise OtherLogError(
            f"this is not the log that the checkpoint {checkpoint} stands for. It was made with another log: {names} "
            f"{_was(others)} deleted and created again, or this is another cluster or namespace (topic ids: {ids}). "
            "Choose: name the cluster that holds the old log (broker.bootstrap_servers); or begin a new run from these "
            f"weights, under another run.name and log.namespace, with policy.model = '{checkpoint}'; or, if the topics "
            "are a copy with the same offsets, set log.accept_copy = true"
        )


class TopicMonitor:
    """Compares the topics with what this process has first seen, and with ``log.partitions``. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: dict[str, str] = {}
        """Topic id when it was first seen, by topic."""
        self._missing: set[str] = set()
        """Topics that were seen, but did not exist at the last look."""

    def compare(self, config: Config, states: Mapping[str, TopicState | None]) -> None:
        """Raise TopicChangedError if a topic is another one, is gone for the second time, or has other partitions."""
        with self._lock:
            lines = [line for entity, state in states.items() if (line := self._identity(config, entity, state))]
        counts = {entity: state.partitions for entity, state in states.items() if state is not None}
        lines += partition_problems(config, counts)
        if lines:
            raise TopicChangedError(". ".join(lines))

    def _identity(self, config: Config, entity: str, state: TopicState | None) -> str | None:
        name = topic_name(config, entity)
        if state is None:
            if name not in self._first:
                return None
            # A broker that has just started may not know of all topics.
            gone = name in self._missing
            self._missing.add(name)
            return f"topic {name} was deleted during the run, and its events with it; {NEW_NAMESPACE}" if gone else None
        self._missing.discard(name)
        first = self._first.setdefault(name, state.topic_id)
        if first == state.topic_id or not (first and state.topic_id):
            return None
        return (
            f"topic {name} was deleted and created again during the run (topic id {first} then, {state.topic_id} now): "
            f"this is not the log that offsets and checkpoints stand for, and its events are gone; {NEW_NAMESPACE}"
        )


_monitor = TopicMonitor()


def check_topics(config: Config, admin: KafkaAdminClient | None = None, monitor: TopicMonitor = _monitor) -> None:
    """Look at the topics now, and compare them with what this process has first seen.

    Raises TopicChangedError, BrokerError, KafkaError.
    """
    own = make_admin(config, "topic-monitor") if admin is None else None
    try:
        monitor.compare(config, topic_states(admin or own, config))
    finally:
        if own is not None:
            own.close()


def _as_text(topic_id: UUID | str | None) -> str:
    text = "" if topic_id is None else str(topic_id)
    return "" if text == str(_NO_ID) else text


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
