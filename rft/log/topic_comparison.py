"""Compares a topic's copies and settings with what the design needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rft.config import LogConfig
from rft.log.clients import largest_event, least_message_limit

COPIES_NEEDED = "min.insync.replicas"


def copies_problems(log: LogConfig, name: str, copies: int, found: Mapping[str, str]) -> list[str]:
    """Return a line for each fault in the copies of a topic; ``found`` are its settings."""
    wanted = log.replication_factor
    problems = []
    if copies < wanted:
        problems.append(
            f"topic {name}: replication factor is {copies}, expected {wanted}; raise it with "
            f"kafka-reassign-partitions.sh, set log.replication_factor = {copies}, or use another log.namespace"
        )
    needed = int(found.get(COPIES_NEEDED) or 1)
    if needed > copies:
        problems.append(
            f"topic {name}: {COPIES_NEEDED} is {needed}, but there are only {copies} copies: nothing can be written; "
            f"{_alter(name, COPIES_NEEDED, str(copies))}, or add copies with kafka-reassign-partitions.sh"
        )
    return problems


def setting_problems(log: LogConfig, name: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return a line for each setting of a topic that is not as wanted. What the broker does not list is not compared.

    A setting that the user passes on (``log.topic_settings``) must be exactly as asked for.
    """
    passed_on = {setting for settings in _tables(log) for setting in settings}
    problems = []
    for setting, value in wanted.items():
        there = found.get(setting)
        if there is None or (there == value if setting in passed_on else _agrees(log, setting, there, value)):
            continue
        choices = [_alter(name, setting, value)]
        choices += ["change log.topic_settings"] if setting in passed_on else _other_choices(setting, there)
        problems.append(
            f"topic {name}: {setting} is {there}, expected {value}; {', '.join(choices)}, or use another log.namespace"
        )
    return problems


def _tables(log: LogConfig) -> list[Mapping[str, object]]:
    return [log.topic_settings, *(value for value in log.topic_settings.values() if isinstance(value, dict))]


def _alter(name: str, setting: str, value: str) -> str:
    shown = f"[{value}]" if "," in value else value
    return f"run kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={shown}"


def _other_choices(setting: str, found: str) -> list[str]:
    """Return what we can change to accept the setting as it is."""
    if setting == COPIES_NEEDED:
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
    if setting == COPIES_NEEDED:
        return int(found) >= int(wanted)
    # Any time to close segments will do.
    return setting == "segment.ms" or found == wanted
