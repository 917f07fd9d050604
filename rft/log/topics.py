"""Defines the eleven topics (names, keys, settings) and creates them.

The key decides the partition, and so what stays in order: all events of one group of rollouts do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, for_code

from rft.config import Config, LogConfig
from rft.errors import BrokerError, TopicError
from rft.log.clients import make_admin, message_limit
from rft.log.outages import broker_error, wait_out
from rft.log.security import principal
from rft.log.topic_comparison import COPIES_NEEDED, copies_problems, setting_problems
from rft.retry import Deadline
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
from schemas.sessions import Session, Turn

_HOUR_MS = 3_600_000
_UNKNOWN_TOPIC = 3
_ALREADY_EXISTS = 36
_NEW_TOPIC_S = 10.0
"""Seconds within which each node of a cluster knows a new topic. The controller creates it, and the others follow."""
Answer = TypeVar("Answer")
EMIT = "create the topics: `rft topics CONFIG --emit shell` (or strimzi, terraform) prints their definitions"
NEW_NAMESPACE = (
    "use another log.namespace and run.name; set policy.model to the newest weights of a run that is to go on there"
)


@dataclass(frozen=True)
class Entity:
    """One topic of the design."""

    record: type[Record] | None
    """Class of its values; None for dead letters, which are bytes as received."""
    key: Callable[[Any], str] | None
    """Returns the key of a record; None where the caller gives the key."""
    retention: Callable[[LogConfig], float]
    """Returns the hours to keep; −1 is forever."""
    cleanup: str = "delete"
    """``cleanup.policy``."""
    partitions: Callable[[LogConfig], int] = lambda log: log.partitions


def _experience_hours(log: LogConfig) -> float:
    return log.experience_retention_hours


def _audit_hours(log: LogConfig) -> float:
    return log.audit_retention_hours


def _forever(_: LogConfig) -> float:
    return -1


def _one(_: LogConfig) -> int:
    return 1


ENTITIES: Mapping[str, Entity] = {
    "tasks": Entity(Task, lambda r: r.group_id, _experience_hours),
    "experiences": Entity(Experience, lambda r: r.group_id, _experience_hours),
    "rewards": Entity(Reward, lambda r: r.group_id, _experience_hours),
    "ready": Entity(ScoredExperience, lambda r: r.experience.group_id, _experience_hours),
    # One partition: the control topics are small, and their readers need one order.
    "weights": Entity(WeightVersion, lambda r: r.model, _forever, "compact", _one),
    "members": Entity(Member, lambda r: r.member_id, lambda _: 24, "compact,delete", _one),
    "steps": Entity(TrainingStep, lambda r: r.model, _audit_hours, "delete", _one),
    "dlq": Entity(None, None, _audit_hours),
    # Pointers into `experiences`, partition by partition, so as many partitions as that has.
    "waiting": Entity(Waiting, lambda r: r.group_id, _forever, "compact"),
    "turns": Entity(Turn, lambda r: r.session_id, _experience_hours),
    # A session whose turns were all deleted cannot go on, so its record need not be kept any longer than they.
    "sessions": Entity(Session, lambda r: r.session_id, _experience_hours, "compact,delete"),
}


def topic_name(config: Config, entity: str) -> str:
    """Return the name of an entity's topic: that in ``log.topics``, else ``<namespace>.<entity>.v1``."""
    if entity not in ENTITIES:
        raise ValueError(f"no topic for {entity!r}; there are {', '.join(ENTITIES)}")
    return config.log.topic(entity)


def consumer_group(config: Config, role: str) -> str:
    """Return the consumer group that the processes of a role share: ``explorers`` or ``processors``."""
    return f"{config.log.namespace}.{role}"


def topic_settings(log: LogConfig, entity: str) -> dict[str, str]:
    """Return the topic's configuration as Kafka spells it."""
    spec = ENTITIES[entity]
    hours = spec.retention(log)
    settings = {
        "cleanup.policy": spec.cleanup,
        "retention.ms": str(-1 if hours < 0 else int(hours * _HOUR_MS)),
        "max.message.bytes": str(message_limit(log)),
        # With acks=all, an acknowledged event is on this many brokers, and only one of them may become the leader.
        COPIES_NEEDED: str(log.copies_needed),
        "unclean.leader.election.enable": "false",
    }
    if spec.cleanup.startswith("compact"):
        # Only closed segments are compacted, and by default one closes after a week.
        settings["segment.ms"] = str(_HOUR_MS)
    return {**settings, **log.settings_of(entity)}


def ensure_topics(config: Config, entities: Collection[str] = tuple(ENTITIES)) -> list[str]:
    """Create the topics that are missing, unless ``log.manage_topics`` is false, and check all against the design.

    Safe to call from any number of processes at once. Returns one line for each topic created.
    Raises TopicError with the topic, the setting, the value found and the value expected of each contradiction.
    """
    failure = f"cannot {'create or ' if config.log.manage_topics else ''}read the topics of {config.log.namespace}"

    def ensure() -> tuple[list[str], list[str]]:
        admin = make_admin(config, "ensure-topics")
        try:
            asked_for, created = _create_missing(admin, config, entities) if config.log.manage_topics else ([], [])
            return created, contradictions(admin, config, entities, new=asked_for)
        except KafkaError as error:
            raise broker_error(failure, error, TopicError) from error
        finally:
            admin.close()

    created, problems = wait_out(failure, ensure)
    if problems:
        raise TopicError("\n".join(problems))
    return created


def _create_missing(admin: KafkaAdminClient, config: Config, entities: Collection[str]) -> tuple[list[str], list[str]]:
    """Create the topics that are missing. Return the names asked for, and a line for each that we created."""
    existing = set(admin.list_topics())
    names = {topic_name(config, entity): entity for entity in entities}
    missing: dict[str, dict[str, Any]] = {
        name: {
            "num_partitions": ENTITIES[entity].partitions(config.log),
            "replication_factor": config.log.replication_factor,
            "configs": topic_settings(config.log, entity),
        }
        for name, entity in names.items()
        if name not in existing
    }
    if not missing:
        return [], []
    answer = admin.create_topics(missing, raise_errors=False)
    created = []
    for topic in answer["topics"]:
        name, code = topic["name"], topic["error_code"]
        if code == 0:
            spec = missing[name]
            created.append(f"created {name}: {spec['num_partitions']} partitions, {_describe(spec['configs'])}")
        elif code != _ALREADY_EXISTS:
            error, message = for_code(code).__name__, topic["error_message"]
            raise TopicError(_cannot_create(config, names[name], error, message))
    admin.wait_for_topics(list(missing))
    return list(missing), created


def _describe(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _cannot_create(config: Config, entity: str, error: str, message: str | None) -> str:
    name = topic_name(config, entity)
    what = f"cannot create topic {name}: {error.removesuffix('Error')}" + (f" ({message})" if message else "")
    if "Authorization" in error:
        return (
            f"{what}. Give {principal(config.broker)} Create and Describe on it, or set log.manage_topics = false "
            f"and {EMIT}"
        )
    if "Replication" in error:
        return f"{what}. Set log.replication_factor ({config.log.replication_factor}) to at most the number of brokers"
    if "Policy" in error or "Config" in error:
        settings = _describe(topic_settings(config.log, entity))
        passed_on = _describe(config.log.settings_of(entity))
        return (
            f"{what}. We ask for {settings}. "
            + (f"Check log.topic_settings ({passed_on}). " if passed_on else "")
            + "If the cluster allows fewer bytes, set log.max_message_bytes to half of its limit; or create the topics "
            "yourself with settings that it allows"
        )
    if "InvalidTopic" in error:
        return f"{what}. Set another log.namespace, or log.topics"
    return what


def contradictions(
    admin: KafkaAdminClient, config: Config, entities: Collection[str] = tuple(ENTITIES), new: Collection[str] = ()
) -> list[str]:
    """Return a line for each setting of a topic that the design does not allow, and for each missing topic.

    ``new`` names topics that were created a moment ago. A node may answer that it does not know them yet, so they are
    asked for again.
    """
    names = {topic_name(config, entity): entity for entity in entities}
    described = _ask_until(
        lambda: {topic["name"]: topic for topic in admin.describe_topics(list(names))},
        lambda found: all(found.get(name, {}).get("error_code") == 0 for name in new),
    )
    present = [name for name in names if described.get(name, {}).get("error_code") == 0]
    # Both brokers know "all". If settings are named, Tansu drops the connection; and it does not list its own settings
    # as modified.
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    settings = _ask_until(
        lambda: admin.describe_configs(resources, config_filter="all")["topic"] if resources else {},
        lambda found: all(found.get(name) for name in new if name in present),
    )
    problems = partition_problems(config, {names[name]: len(described[name]["partitions"]) for name in present})
    for name, entity in names.items():
        if name not in present:
            problems.append(_missing(config, name, described.get(name, {}).get("error_code", _UNKNOWN_TOPIC)))
            continue
        found = {key: entry["value"] for key, entry in settings.get(name, {}).items()}
        copies = min(len(partition["replica_nodes"]) for partition in described[name]["partitions"])
        problems += copies_problems(config.log, name, copies, found)
        problems += setting_problems(config.log, name, topic_settings(config.log, entity), found)
    return problems


def _ask_until(ask: Callable[[], Answer], complete: Callable[[Answer], bool]) -> Answer:
    """Return the first complete answer, or the last one if none is complete within a few seconds."""
    deadline = Deadline(_NEW_TOPIC_S)
    while not complete(answer := ask()) and not deadline.passed:
        time.sleep(0.1)
    return answer


def _is_control(entity: str) -> bool:
    """Return whether the topic has one partition, whatever ``log.partitions`` is."""
    return ENTITIES[entity].partitions is _one


def topic_limit(config: Config, entity: str) -> int | None:
    """Return the bytes that the topic takes in one message; None if the broker does not say."""
    name = topic_name(config, entity)
    try:
        admin = make_admin(config, "topic-limit")
        try:
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
        finally:
            admin.close()
    except (KafkaError, BrokerError):
        return None
    value = found["topic"].get(name, {}).get("max.message.bytes", {}).get("value")
    return None if value is None else int(value)


def _missing(config: Config, name: str, code: int) -> str:
    what = f"topic {name}: {for_code(code).__name__.removesuffix('Error')}"
    if code != _UNKNOWN_TOPIC:
        return f"{what}; allow this user to describe it (`rft acls CONFIG` prints what each role needs)"
    return f"{what}; {missing_advice(config)}"


def missing_advice(config: Config) -> str:
    """Return what to do about a topic that does not exist."""
    if config.log.manage_topics:
        return f"`rft run` creates it. To start roles by hand, {EMIT}"
    return f"log.manage_topics is false, so {EMIT}"


def partition_problems(config: Config, found: Mapping[str, int]) -> list[str]:
    """Return a line for each topic that has not the right number of partitions; ``found`` is theirs, by entity.

    The advice holds for all topics together: those with ``log.partitions`` need one number, and Kafka can add
    partitions, but not remove any.
    """
    keyed = sorted({count for entity, count in found.items() if not _is_control(entity)})
    problems = []
    for entity, count in found.items():
        expected = ENTITIES[entity].partitions(config.log)
        if count == expected:
            continue
        if _is_control(entity):
            advice = f"its readers need one order, and Kafka cannot remove partitions: {NEW_NAMESPACE}"
        elif len(keyed) > 1:
            numbers = " and ".join(map(str, keyed))
            advice = (
                f"keyed topics must agree, but they have {numbers}, and Kafka cannot remove partitions: {NEW_NAMESPACE}"
            )
        else:
            advice = f"set log.partitions = {count} if the topics hold no events of a run yet, or {NEW_NAMESPACE}"
        problems.append(f"topic {topic_name(config, entity)}: partitions is {count}, expected {expected}; {advice}")
    return problems
