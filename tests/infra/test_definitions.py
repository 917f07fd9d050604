"""The definitions of topics and ACLs say the same in every format, and their tools can read them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from infra.cli import main
from infra.definitions.base import AclRule, TopicDefinition, acl_rules, topic_definitions
from infra.definitions.formats import FORMATS, make_target, open_format
from rft.config import Config
from rft.errors import ConfigError
from rft.log.access import access_by_role
from rft.log.topics import ENTITIES

CONFIG = Config.model_validate(
    {
        "log": {
            "namespace": "Team_A",
            "topics": {"dlq": "Team_A.errors"},
            "topic_settings": {"experiences": {"x.template": 'a "${quoted}" %{value}'}},
        }
    }
)
TARGET = make_target(CONFIG, "events")
TOPICS = topic_definitions(CONFIG)
RULES = acl_rules(CONFIG, tuple(access_by_role(CONFIG)), "User:team-")


def read_hcl(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Parse the part of HCL that we write: resources of strings, numbers and one level of maps. Fail on any other."""
    resources: list[tuple[str, str, dict[str, Any]]] = []
    inner: dict[str, Any] | None = None
    lines = iter(text.splitlines())
    for line in lines:
        if match := re.fullmatch(r'resource "(\w+)" "([A-Za-z_][\w-]*)" \{', line):
            resources.append((match[1], match[2], {}))
        elif line == "terraform {":
            while next(lines) != "}":
                pass
        elif match := re.fullmatch(r"  (\w+) = \{", line):
            inner = resources[-1][2][match[1]] = {}
        elif line == "  }":
            inner = None
        elif match := re.fullmatch(r'    ("[^"]+") = (".*")', line):
            assert inner is not None
            inner[json.loads(match[1])] = text_of(match[2])
        elif match := re.fullmatch(r"  (\w+) = (.+)", line):
            assert inner is None
            resources[-1][2][match[1]] = text_of(match[2])
        else:
            assert line in ("", "}") or line.startswith("#"), line
    return resources


def text_of(literal: str) -> Any:
    """Return a literal's value. A dollar or percent sign before a brace must be doubled: it would begin a template."""
    assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", literal)
    return json.loads(literal.replace("$${", "${").replace("%%{", "%{"))


def test_strimzi_reads_all_topics() -> None:
    found = list(yaml.safe_load_all(open_format("strimzi").topics(TOPICS, TARGET)))
    assert {(one["kind"], one["metadata"]["labels"]["strimzi.io/cluster"]) for one in found} == {
        ("KafkaTopic", "events")
    }
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", one["metadata"]["name"]) for one in found)
    specs = [one["spec"] for one in found]
    assert [
        TopicDefinition(entity, spec["topicName"], spec["partitions"], spec["replicas"], spec["config"])
        for entity, spec in zip(ENTITIES, specs, strict=True)
    ] == TOPICS


def test_terraform_reads_all_topics() -> None:
    found = read_hcl(open_format("terraform").topics(TOPICS, TARGET))
    assert {kind for kind, _, _ in found} == {"kafka_topic"}
    assert [
        TopicDefinition(label, one["name"], one["partitions"], one["replication_factor"], one["config"])
        for _, label, one in found
    ] == TOPICS


def test_strimzi_reads_all_acls() -> None:
    found = list(yaml.safe_load_all(open_format("strimzi").acls(RULES, TARGET)))
    assert {one["kind"] for one in found} == {"KafkaUser"}
    assert {one["spec"]["authentication"]["type"] for one in found} == {"scram-sha-512"}
    rules = {
        (one["metadata"]["name"], acl["resource"]["type"], acl["resource"].get("name"), tuple(acl["operations"]))
        for one in found
        for acl in one["spec"]["authorization"]["acls"]
    }
    assert rules == {
        (f"team-{rule.role}", rule.resource, None if rule.resource == "cluster" else rule.name, rule.operations)
        for rule in RULES
    }


def test_terraform_reads_all_acls() -> None:
    found = read_hcl(open_format("terraform").acls(RULES, TARGET))
    labels = [label for _, label, _ in found]
    assert len(set(labels)) == len(labels)
    assert {one["acl_permission_type"] for _, _, one in found} == {"Allow"}
    keys = ("acl_principal", "resource_type", "resource_name", "acl_operation")
    assert {tuple(one[key] for key in keys) for _, _, one in found} == {
        (rule.principal, rule.resource.capitalize(), rule.name, operation)
        for rule in RULES
        for operation in rule.operations
    }


def test_a_principal_that_kubernetes_cannot_name_is_refused() -> None:
    rule = AclRule("explorer", "User:CN=Explorer", "topic", "t", ("Read",))
    with pytest.raises(ConfigError, match="User:CN=Explorer cannot be a KafkaUser"):
        open_format("strimzi").acls([rule], TARGET)


@pytest.mark.parametrize("emit", FORMATS)
@pytest.mark.parametrize("command", ["topics", "acls"])
def test_the_commands_print_definitions_without_a_broker(
    command: str, emit: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[broker]\nkind = "external"\nbootstrap_servers = "nowhere:1"\n')
    monkeypatch.setattr("sys.argv", ["rft", command, str(path), "--emit", emit])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "rft.experiences.v1" in capsys.readouterr().out


def test_an_unknown_role_is_named_with_those_that_there_are(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text("")
    monkeypatch.setattr("sys.argv", ["rft", "acls", str(path), "--role", "explorers"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--role explorers: there are conductor, explorer" in capsys.readouterr().err
