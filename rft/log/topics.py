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
from rft.errors import BrokerError, TopicError
from rft.log.clients import largest_event, least_message_limit, make_admin, message_limit
from rft.log.outages import broker_error, wait_out
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
_COPIES_NEEDED = "min.insync.replicas"
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
        # With acks=all, an acknowledged event is on this many brokers, and only one of them may become the leader.
        _COPIES_NEEDED: str(log.copies_needed),
        "unclean.leader.election.enable": "false",
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
    failure = f"cannot create or read the topics {config.log.namespace}.*"

    def ensure() -> tuple[list[str], list[str]]:
        admin = make_admin(config, "ensure-topics")
        try:
            return _create_missing(admin, config), contradictions(admin, config)
        except KafkaError as error:
            raise broker_error(failure, error, TopicError) from error
        finally:
            admin.close()

    created, problems = wait_out(failure, ensure)
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
    if "Policy" in error or "Config" in error:
        settings = _describe(topic_settings(config.log, name.split(".")[-2]))
        return (
            f"{what}. We ask for {settings}. If the cluster allows fewer bytes, set log.max_message_bytes to half of "
            "its limit; or create the topics yourself with settings that it allows"
        )
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
    problems = partition_problems(config, {names[name]: len(described[name]["partitions"]) for name in present})
    for name, entity in names.items():
        if name not in present:
            problems.append(_missing(name, described.get(name, {}).get("error_code", 3)))
            continue
        found = {key: entry["value"] for key, entry in settings.get(name, {}).items()}
        copies = min(len(partition["replica_nodes"]) for partition in described[name]["partitions"])
        problems += _compare_copies(config, name, copies, found)
        problems += _compare(config, name, entity, found)
    return problems


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


def _missing(name: str, code: int) -> str:
    return f"topic {name}: {for_code(code).__name__.removesuffix('Error')}; start with `rft run` or create it"


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


def _compare_copies(config: Config, name: str, copies: int, found: Mapping[str, str]) -> list[str]:
    wanted = config.log.replication_factor
    problems = []
    if copies < wanted:
        problems.append(
            f"topic {name}: replication factor is {copies}, expected {wanted}; raise it with "
            f"kafka-reassign-partitions.sh, set log.replication_factor = {copies}, or use another log.namespace"
        )
    needed = int(found.get(_COPIES_NEEDED) or 1)
    if needed > copies:
        problems.append(
            f"topic {name}: {_COPIES_NEEDED} is {needed}, but there are only {copies} copies: nothing can be written; "
            f"{_alter(name, _COPIES_NEEDED, str(copies))}, or add copies with kafka-reassign-partitions.sh"
        )
    return problems


def _compare(config: Config, name: str, entity: str, found: Mapping[str, str]) -> list[str]:
    problems = []
    for setting, wanted in topic_settings(config.log, entity).items():
        value = found.get(setting)
        if value is not None and not _agrees(config.log, setting, value, wanted):
            choices = [_alter(name, setting, wanted), *_other_choices(setting, value), "use another log.namespace"]
            problems.append(
                f"topic {name}: {setting} is {value}, expected {wanted}; {', '.join(choices[:-1])}, or {choices[-1]}"
            )
    return problems


def _alter(name: str, setting: str, value: str) -> str:
    shown = f"[{value}]" if "," in value else value
    return f"run kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={shown}"


def _other_choices(setting: str, found: str) -> list[str]:
    """Return what we can change to accept the setting as it is."""
    if setting == _COPIES_NEEDED:
        return [f"set log.min_insync_replicas = {found}"]
    if setting == "max.message.bytes" and largest_event(int(found)) >= 1024:
        return [f"set log.max_message_bytes to at most {largest_event(int(found))}"]
    return []


def _agrees(log: LogConfig, setting: str, found: str, wanted: str) -> bool:
    """Return whether a setting will do: enough room, and more copies or longer retention than asked for."""
    if setting == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    if setting == "retention.ms":
        return int(found) == -1 or (int(wanted) != -1 and int(found) >= int(wanted))
    if setting == "max.message.bytes":
        return int(found) >= least_message_limit(log)
    if setting == _COPIES_NEEDED:
        return int(found) >= int(wanted)
    # Any time to close segments will do.
    return setting == "segment.ms" or found == wanted
