"""Starts an Apache Kafka node that enforces ACLs, with a user for each role."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from infra.broker import BrokerProcess
from infra.definitions.base import AclRule
from infra.kafka_node import KafkaNode
from infra.processes import HOST, free_port
from rft.config import Config
from rft.log.clients import make_admin
from rft.retry import Deadline

PASSWORD = "correct-horse"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
_OPERATIONS = {
    "Read": ACLOperation.READ,
    "Write": ACLOperation.WRITE,
    "Create": ACLOperation.CREATE,
    "Describe": ACLOperation.DESCRIBE,
    "DescribeConfigs": ACLOperation.DESCRIBE_CONFIGS,
}
_RESOURCES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.CLUSTER}

ANY_ACL = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


@dataclass
class AuthorizedNode:
    broker: BrokerProcess
    administrators: str
    """Bootstrap servers where anyone may do everything."""
    users: str
    """Bootstrap servers where a user may do what ACLs allow."""

    def login(self, role: str) -> dict[str, Any]:
        """Return ``[broker]`` of a role."""
        return {
            "kind": "external",
            "bootstrap_servers": self.users,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_username": f"rft-{role}",
            "sasl_password": PASSWORD,
        }

    def allow(self, config: Config, rules: Iterable[AclRule]) -> None:
        """Add ACLs, and wait until the broker enforces them; ``config`` is an administrator's."""
        wanted = [acl for rule in rules for acl in as_kafka(rule)]
        admin = make_admin(config, "administrators")
        try:
            admin.create_acls(wanted)
            deadline = Deadline(20)
            while not set(wanted) <= set(admin.describe_acls(ANY_ACL)[0]):
                assert not deadline.passed
                time.sleep(0.05)
        finally:
            admin.close()


def as_kafka(rule: AclRule) -> list[ACL]:
    pattern = ResourcePattern(_RESOURCES[rule.resource], rule.name)
    return [
        ACL(rule.principal, "*", _OPERATIONS[operation], ACLPermissionType.ALLOW, pattern)
        for operation in rule.operations
    ]


def start_authorized_node(folder: Path, roles: Sequence[str]) -> AuthorizedNode:
    plain, sasl, controller = free_port(), free_port(), free_port()
    listeners = f"PLAINTEXT://{HOST}:{plain},SASL_PLAINTEXT://{HOST}:{sasl}"
    settings = {
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f'{_SCRAM} username="x" password="y";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    users = [
        argument
        for role in roles
        for argument in ("--add-scram", f"SCRAM-SHA-512=[name=rft-{role},password={PASSWORD}]")
    ]
    broker = BrokerProcess(KafkaNode(Config(), folder / "kafka", settings, users), plain, folder / "broker.log")
    broker.start()
    return AuthorizedNode(broker, f"{HOST}:{plain}", f"{HOST}:{sasl}")
