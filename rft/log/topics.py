"""Defines the nine topics (names, keys, settings) and creates them.

The key decides the partition, and so what stays in order: all events of one group of rollouts do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, for_code

from rft.config import Config, LogConfig
from rft.errors import TopicError
from rft.log.clients import make_admin, message_limit
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

_HOUR_MS = 3_600_000
_ALREADY_EXISTS = 36


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
}


def topic_name(config: Config, entity: str) -> str:
    """Return ``<namespace>.<entity>.v1``."""
    if entity not in ENTITIES:
        raise ValueError(f"no topic for {entity!r}; there are {', '.join(ENTITIES)}")
    return f"{config.log.namespace}.{entity}.v1"


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
    }
    if spec.cleanup.startswith("compact"):
        # Only closed segments are compacted, and by default one closes after a week.
        settings["segment.ms"] = str(_HOUR_MS)
    return settings


def ensure_topics(config: Config) -> list[str]:
    """Create the topics that are missing, and check that all agree with the design.

    Safe to call from any number of processes at once. Returns one line for each topic created.
    Raises TopicError with the topic, the setting, the value found and the value expected of each contradiction.
    """
    admin = make_admin(config, "ensure-topics")
    try:
        created = _create_missing(admin, config)
        problems = contradictions(admin, config)
    except KafkaError as error:
        raise TopicError(f"cannot create or read the topics {config.log.namespace}.*: {error}") from error
    finally:
        admin.close()
    if problems:
        raise TopicError("\n".join(problems))
    return created


def _create_missing(admin: KafkaAdminClient, config: Config) -> list[str]:
    existing = set(admin.list_topics())
    missing: dict[str, dict[str, Any]] = {
        topic_name(config, entity): {
            "num_partitions": spec.partitions(config.log),
            "replication_factor": config.log.replication_factor,
            "configs": topic_settings(config.log, entity),
        }
        for entity, spec in ENTITIES.items()
        if topic_name(config, entity) not in existing
    }
    if not missing:
        return []
    answer = admin.create_topics(missing, raise_errors=False)
    created = []
    for topic in answer["topics"]:
        name, code = topic["name"], topic["error_code"]
        if code == 0:
            spec = missing[name]
            created.append(f"created {name}: {spec['num_partitions']} partitions, {_describe(spec['configs'])}")
        elif code != _ALREADY_EXISTS:
            raise TopicError(_cannot_create(config, name, for_code(code).__name__, topic["error_message"]))
    admin.wait_for_topics(list(missing))
    return created


def _describe(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _cannot_create(config: Config, name: str, error: str, message: str | None) -> str:
    what = f"cannot create topic {name}: {error.removesuffix('Error')}" + (f" ({message})" if message else "")
    if "Authorization" in error:
        return f"{what}. Give {config.broker.sasl_username} Create and Describe on topics {config.log.namespace}.*"
    if "Replication" in error:
        return f"{what}. Set log.replication_factor ({config.log.replication_factor}) to at most the number of brokers"
    return what


def contradictions(admin: KafkaAdminClient, config: Config) -> list[str]:
    """Return a line for each setting of a topic that the design does not allow, and for each missing topic."""
    names = {topic_name(config, entity): entity for entity in ENTITIES}
    described = {topic["name"]: topic for topic in admin.describe_topics(list(names))}
    present = [name for name in names if described.get(name, {}).get("error_code") == 0]
    # Both brokers know "all". If settings are named, Tansu drops the connection; and it does not list its own settings
    # as modified.
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    settings = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    problems = []
    for name, entity in names.items():
        if name not in present:
            problems.append(_missing(name, described.get(name, {}).get("error_code", 3)))
            continue
        found = {key: entry["value"] for key, entry in settings.get(name, {}).items()}
        problems += _compare(config, name, entity, len(described[name]["partitions"]), found)
    return problems


def _missing(name: str, code: int) -> str:
    return f"topic {name}: {for_code(code).__name__.removesuffix('Error')}; start with `rft run` or create it"


def _compare(config: Config, name: str, entity: str, partitions: int, found: Mapping[str, str]) -> list[str]:
    expected = ENTITIES[entity].partitions(config.log)
    problems = []
    if partitions != expected:
        remedy = f"set log.partitions = {partitions}" if entity not in ("weights", "members", "steps") else "delete it"
        problems.append(
            f"topic {name}: partitions is {partitions}, expected {expected}; {remedy}, or use another log.namespace"
        )
    for setting, wanted in topic_settings(config.log, entity).items():
        value = found.get(setting)
        shown = f"[{wanted}]" if "," in wanted else wanted
        if value is not None and not _agrees(setting, value, wanted):
            problems.append(
                f"topic {name}: {setting} is {value}, expected {wanted}; run kafka-configs.sh --alter --entity-type "
                f"topics --entity-name {name} --add-config {setting}={shown}, or use another log.namespace"
            )
    return problems


def _agrees(setting: str, found: str, wanted: str) -> bool:
    """Return whether a setting will do: more room and longer retention do, and any time to close segments."""
    if setting == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    if setting == "retention.ms":
        return int(found) == -1 or (int(wanted) != -1 and int(found) >= int(wanted))
    if setting == "max.message.bytes":
        return int(found) >= int(wanted)
    return True
