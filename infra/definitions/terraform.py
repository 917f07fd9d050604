"""Writes definitions as Terraform resources of the provider Mongey/kafka."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from infra.definitions.base import AclRule, Target, TopicDefinition

_HEAD = """terraform {{
  required_providers {{
    kafka = {{
      source = "Mongey/kafka"
    }}
  }}
}}

# provider "kafka" {{ bootstrap_servers = {servers} }}
"""


def topics(definitions: Sequence[TopicDefinition], target: Target) -> str:
    """Return a ``kafka_topic`` for each topic."""
    return _head(target) + "".join(
        _resource(
            "kafka_topic",
            topic.entity,
            {
                "name": topic.name,
                "partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "config": topic.settings,
            },
        )
        for topic in definitions
    )


def acls(rules: Sequence[AclRule], target: Target) -> str:
    """Return a ``kafka_acl`` for each operation that a principal may do on a resource."""
    return _head(target) + "".join(
        _resource(
            "kafka_acl",
            f"{rule.role}_{rule.resource}_{rule.name}_{operation}",
            {
                "acl_principal": rule.principal,
                "acl_host": "*",
                "acl_operation": operation,
                "acl_permission_type": "Allow",
                "resource_type": rule.resource.capitalize(),
                "resource_name": rule.name,
                "resource_pattern_type_filter": "Literal",
            },
        )
        for rule in rules
        for operation in rule.operations
    )


def _head(target: Target) -> str:
    return _HEAD.format(servers=json.dumps(target.bootstrap_servers.split(",")))


def _resource(kind: str, label: str, values: Mapping[str, object]) -> str:
    lines = "".join(f"  {key} = {_value(value)}\n" for key, value in values.items())
    return f'\nresource "{kind}" "{re.sub(r"[^A-Za-z0-9_-]", "_", label)}" {{\n{lines}}}\n'


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inner = "".join(f"    {_value(key)} = {_value(one)}\n" for key, one in value.items())
        return f"{{\n{inner}  }}"
    # JSON's strings are HCL's, in which ${ and %{ begin a template.
    return json.dumps(value).replace("${", "$${").replace("%{", "%%{")
