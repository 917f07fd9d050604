"""Lists the topics and ACLs that a configuration needs, whatever the format that they are written in. Pure.

A format is a module with two functions: ``topics(definitions, target)`` and ``acls(rules, target)`` return the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rft.config import Config
from rft.log.access import Access, access_by_role
from rft.log.topics import ENTITIES, consumer_group, topic_name, topic_settings

CLUSTER = "kafka-cluster"
"""Kafka's name for the cluster as a resource."""
Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]


@dataclass(frozen=True, slots=True)
class TopicDefinition:
    """One topic as it is to be created."""

    entity: str
    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AclRule:
    """What one principal may do with one resource."""

    role: str
    principal: str
    resource: Literal["topic", "group", "cluster"]
    name: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Facts about the cluster that definitions may name."""

    bootstrap_servers: str
    cluster: str
    """Name of the Strimzi cluster."""
    authentication: Literal["scram-sha-512", "tls"]
    """How the users of Strimzi log in."""


class Format(Protocol):
    """What a format's module offers."""

    def topics(self, definitions: Sequence[TopicDefinition], target: Target) -> str: ...
    def acls(self, rules: Sequence[AclRule], target: Target) -> str: ...


def topic_definitions(config: Config) -> list[TopicDefinition]:
    """Return all topics with the settings that we would create them with."""
    return [
        TopicDefinition(
            entity,
            topic_name(config, entity),
            spec.partitions(config.log),
            config.log.replication_factor,
            topic_settings(config.log, entity),
        )
        for entity, spec in ENTITIES.items()
    ]


def acl_rules(config: Config, roles: Sequence[str], principal_prefix: str) -> list[AclRule]:
    """Return what each of the roles must be allowed, and no more. A role's principal is the prefix and its name."""
    access = access_by_role(config)
    return [rule for role in roles for rule in _rules(config, role, access[role], f"{principal_prefix}{role}")]


def _rules(config: Config, role: str, access: Access, principal: str) -> list[AclRule]:
    rules = [
        AclRule(role, principal, "topic", topic_name(config, entity), _topic_operations(access, entity, config))
        for entity in access.entities
    ]
    # To join a group implies that one may describe it.
    rules += [AclRule(role, principal, "group", consumer_group(config, name), ("Read",)) for name in access.joins]
    rules += [AclRule(role, principal, "group", consumer_group(config, name), ("Describe",)) for name in access.watches]
    if access.sees_sizes:
        rules.append(AclRule(role, principal, "cluster", CLUSTER, ("Describe",)))
    return rules


def _topic_operations(access: Access, entity: str, config: Config) -> tuple[Operation, ...]:
    operations: list[Operation] = []
    if entity in access.reads:
        operations.append("Read")
    if entity in access.writes:
        operations.append("Write")
    if access.creates and config.log.manage_topics:
        operations.append("Create")
    # A role compares the settings of its topics with the design when it starts, and asks how large a message may be.
    return (*operations, "Describe", "DescribeConfigs")
