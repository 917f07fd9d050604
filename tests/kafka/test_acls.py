"""On a cluster that enforces ACLs, a role does its work with those that `rft acls` prints, and may do nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from authorized_node import ANY_ACL, PASSWORD, AuthorizedNode, as_kafka, start_authorized_node
from brokers import require_kafka_home
from kafka.errors import TopicAuthorizationFailedError
from kafka_scripts import run_script

from consumers.audit import audit
from consumers.audit.audit import committed_by_processors
from infra.cli import main
from infra.definitions.base import acl_rules
from infra.doctor.diagnose import diagnose
from producers.rewards import RewardProducer
from rft.config import Config
from rft.errors import BrokerError
from rft.log.access import READER, REWARDER, access_by_role
from rft.log.clients import make_admin
from rft.log.live_view import LiveView
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topic_table import topic_table
from rft.log.topics import ENTITIES, ensure_topics, topic_name
from rft.log.writer import EventWriter
from tests.producers.roles import Log, RoleProcess
from tests.rft.policy.tiny_policy import make_model

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

ROLES = tuple(access_by_role(Config()))
PREFIX = "User:rft-"
As = Callable[[Config, str], Config]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizedNode]:
    require_kafka_home()
    node = start_authorized_node(tmp_path_factory.mktemp("authorized"), ROLES)
    yield node
    node.broker.stop()


def prepare(node: AuthorizedNode, **sections: Any) -> Config:
    """Return an administrator's configuration. Its topics are made, and each role has the ACLs that we print."""
    config = Config.model_validate(
        {
            "broker": {"kind": "external", "bootstrap_servers": node.administrators},
            "log": {"namespace": f"test-{uuid.uuid4().hex[:12]}", "manage_topics": False},
            "processor": {"external": {"required": ["human"], "deadline_s": 1, "on_missing": "default"}},
            **sections,
        }
    )
    ensure_topics(config.model_copy(update={"log": config.log.model_copy(update={"manage_topics": True})}))
    node.allow(config, acl_rules(config, ROLES, PREFIX))
    return config


@pytest.fixture(scope="module")
def config(node: AuthorizedNode) -> Config:
    """A log that stays empty."""
    return prepare(node)


@pytest.fixture
def as_role(node: AuthorizedNode) -> As:
    """Return ``as_role(config, role)``: the configuration with the login of a role."""

    def change(config: Config, role: str) -> Config:
        return Config.model_validate({**config.model_dump(exclude_unset=True), "broker": node.login(role)})

    return change


def test_each_role_works_with_exactly_its_acls(
    node: AuthorizedNode, as_role: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepare(
        node,
        run={"folder": str(tmp_path), "name": "test"},
        policy={"model": str(make_model(tmp_path / "model", 0)), "device": "cpu"},
        tasks={"source": "reasoning_gym:spell_backward", "prompt_template": "{word}>"},
        rollout={"samples": 2, "max_tokens": 4},
        trainer={"steps": 2, "groups_per_step": 2},
        eval={"tasks": 2},
        archive={"enabled": True},
    )
    monkeypatch.setenv("RFT_BROKER__SASL_PASSWORD", PASSWORD)
    reader = as_role(config, READER)
    with ExitStack() as roles, Log(reader, "steps", "weights") as log:
        for role in ("processor", "archiver", "trainer", "explorer", "conductor"):
            monkeypatch.setenv("RFT_BROKER__SASL_USERNAME", f"rft-{role}")
            process = roles.enter_context(RoleProcess(role, as_role(config, role)))
        log.wait("steps", lambda steps: sum(one.kind == "step" for one in steps) == 2, 240)
        assert process.process.wait(60) == 0, process.log_path.read_text()  # the conductor, after the last evaluation
    with open_log(reader) as view:
        assert isinstance(view, LiveView)
        report = audit(reader, view, committed_by_processors(reader, view))
    assert report.ok, report
    assert {row.entity for row in topic_table(reader) if row.exists} == set(ENTITIES)
    assert not [one for one in diagnose(reader) if one.level == "fail" and "topic" in one.what]
    with RewardProducer(as_role(config, REWARDER)) as rewards:
        rewards.send("train-00000001/0", 1.0, source="human")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_its_work_needs_and_nothing_else(config: Config, as_role: As, role: str) -> None:
    """The broker itself says what this user may do with each topic."""
    admin = make_admin(as_role(config, role), "test")
    found = {topic["name"]: topic for topic in admin.describe_topics([topic_name(config, one) for one in ENTITIES])}
    admin.close()
    allowed = {
        entity: set(topic["authorized_operations"])
        for entity in ENTITIES
        if (topic := found[topic_name(config, entity)])["error_code"] == 0
    }
    access = access_by_role(config)[role]
    assert allowed == {
        entity: {"DESCRIBE", "DESCRIBE_CONFIGS"}
        | ({"READ"} if entity in access.reads else set())
        | ({"WRITE"} if entity in access.writes else set())
        for entity in access.entities
    }


@pytest.mark.parametrize(("role", "entity"), [("explorer", "steps"), ("reader", "rewards"), ("rewarder", "ready")])
def test_a_role_cannot_write_what_others_write(config: Config, as_role: As, role: str, entity: str) -> None:
    writer = EventWriter(as_role(config, role), "test", max_block_ms=2000)

    def write() -> None:
        writer.send_bytes(entity, b"x", key=b"k")
        writer.flush(10)

    with pytest.raises(BrokerError):
        write()
    writer.close(timeout_s=0)
    with EventReader(as_role(config, READER), "test", [entity]) as reader:
        assert not sum(reader.end_offsets().values())


def test_a_rewarder_reads_nothing(config: Config, as_role: As) -> None:
    with (
        pytest.raises((BrokerError, TopicAuthorizationFailedError)),
        EventReader(as_role(config, REWARDER), "test", ["rewards"]) as reader,
    ):
        reader.poll(5)


def test_the_printed_commands_add_exactly_these_acls(
    config: Config,
    tmp_path: Path,
    node: AuthorizedNode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[log]\nnamespace = "{config.log.namespace}"\n')
    arguments = ["acls", str(path), "--emit", "shell", "--role", "explorer", "--principal-prefix", "User:printed-"]
    monkeypatch.setattr("sys.argv", ["rft", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    run_script(capsys.readouterr().out, tmp_path, node.administrators)
    admin = make_admin(config, "test")
    acls, _ = admin.describe_acls(ANY_ACL)
    admin.close()
    assert {acl for acl in acls if acl.principal == "User:printed-explorer"} == {
        acl for rule in acl_rules(config, ["explorer"], "User:printed-") for acl in as_kafka(rule)
    }
