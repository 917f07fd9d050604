"""Writes definitions as commands of Kafka's own scripts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from infra.definitions.base import AclRule, Operation, Target, TopicDefinition

_HEAD = """#!/bin/sh
# Needs Kafka's bin folder on the PATH. COMMAND_CONFIG may name a file with an administrator's login.
set -eu
[ -n "${{BOOTSTRAP:-}}" ] || BOOTSTRAP={servers}
"""
_LOGIN = '--bootstrap-server "$BOOTSTRAP" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"}'


def topics(definitions: Sequence[TopicDefinition], target: Target) -> str:
    """Return a script that creates the topics that do not exist."""
    return _head(target) + "".join(map(_create, definitions))


def acls(rules: Sequence[AclRule], target: Target) -> str:
    """Return a script that adds the ACLs."""
    lines = [_head(target)]
    for role in dict.fromkeys(rule.role for rule in rules):
        lines.append(f"# {role}\n")
        own = [rule for rule in rules if rule.role == role]
        # One command for all resources with the same rights: each starts a Java process.
        for kind, operations in dict.fromkeys((rule.resource, rule.operations) for rule in own):
            names = [rule.name for rule in own if (rule.resource, rule.operations) == (kind, operations)]
            lines.append(_add(own[0].principal, kind, names, operations))
    return "".join(lines)


def _head(target: Target) -> str:
    return _HEAD.format(servers=shlex.quote(target.bootstrap_servers))


def _create(topic: TopicDefinition) -> str:
    settings = "".join(f" \\\n  --config {shlex.quote(f'{key}={value}')}" for key, value in topic.settings.items())
    return (
        f"kafka-topics.sh {_LOGIN} --create --if-not-exists --topic {shlex.quote(topic.name)} "
        f"--partitions {topic.partitions} --replication-factor {topic.replication_factor}{settings}\n"
    )


def _add(principal: str, kind: str, names: Sequence[str], operations: Sequence[Operation]) -> str:
    resources = "--cluster" if kind == "cluster" else " ".join(f"--{kind} {shlex.quote(name)}" for name in names)
    allowed = " ".join(f"--operation {operation}" for operation in operations)
    return f"kafka-acls.sh {_LOGIN} --add --allow-principal {shlex.quote(principal)} {allowed} {resources}\n"
