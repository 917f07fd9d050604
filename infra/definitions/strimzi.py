"""Writes definitions as Kubernetes resources of Strimzi: KafkaTopic and KafkaUser."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from infra.definitions.base import AclRule, Target, TopicDefinition
from rft.errors import ConfigError

_API = "kafka.strimzi.io/v1"
"""Of Strimzi 0.49 and later. Earlier ones take the same text with v1beta2."""


def topics(definitions: Sequence[TopicDefinition], target: Target) -> str:
    """Return a KafkaTopic for each topic."""
    return "".join(
        _resource(
            "KafkaTopic",
            topic.name,
            target,
            {
                "topicName": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication_factor,
                "config": dict(topic.settings),
            },
        )
        for topic in definitions
    )


def acls(rules: Sequence[AclRule], target: Target) -> str:
    """Return a KafkaUser for each principal, with its ACLs. Its name is the principal without ``User:``.

    Raises ConfigError for a principal that cannot be the name of a KafkaUser.
    """
    text = ""
    for principal in dict.fromkeys(rule.principal for rule in rules):
        user = principal.removeprefix("User:")
        if user != _kubernetes_name(user):
            raise ConfigError(
                f"--principal-prefix: {principal} cannot be a KafkaUser, whose name has lower-case letters, digits, "
                "'-' and '.' only"
            )
        own = [rule for rule in rules if rule.principal == principal]
        spec = {
            "authentication": {"type": target.authentication},
            "authorization": {"type": "simple", "acls": [_acl(rule) for rule in own]},
        }
        text += _resource("KafkaUser", user, target, spec)
    return text


def _acl(rule: AclRule) -> dict[str, Any]:
    resource: dict[str, str] = {"type": rule.resource}
    if rule.resource != "cluster":
        resource |= {"name": rule.name, "patternType": "literal"}
    return {"resource": resource, "operations": list(rule.operations)}


def _resource(kind: str, name: str, target: Target, spec: dict[str, Any]) -> str:
    metadata = {"name": _kubernetes_name(name), "labels": {"strimzi.io/cluster": target.cluster}}
    return "---\n" + "\n".join(_lines({"apiVersion": _API, "kind": kind, "metadata": metadata, "spec": spec}, 0)) + "\n"


def _kubernetes_name(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]", "-", name.lower()).strip("-.")


def _lines(value: dict[str, Any], depth: int) -> list[str]:
    """Return YAML lines. Scalars and lists of scalars are written as JSON, which is YAML."""
    indent, lines = "  " * depth, []
    for key, inner in value.items():
        if isinstance(inner, dict):
            lines += [f"{indent}{key}:", *_lines(inner, depth + 1)]
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            lines.append(f"{indent}{key}:")
            for item in inner:
                first, *others = _lines(item, depth + 2)
                lines += [f"{indent}  - {first.strip()}", *others]
        else:
            lines.append(f"{indent}{key}: {json.dumps(inner)}")
    return lines
