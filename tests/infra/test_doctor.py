"""The doctor finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from brokers import ConfigMaker

from infra.doctor.diagnose import diagnose
from infra.preflight.contract import Finding
from rft.config import Config
from rft.log.clients import make_admin
from rft.log.topic_table import topic_table
from rft.log.topics import ENTITIES, ensure_topics, topic_name
from tests.rft.policy.tiny_policy import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model"), 0))


def findings(config: Config, level: str) -> list[Finding]:
    return [finding for finding in diagnose(config) if finding.level == level]


def test_all_is_well(any_broker: str, make_config: ConfigMaker, model: str, tmp_path: Path) -> None:
    config = make_config(any_broker, policy={"model": model}, run={"folder": tmp_path})
    assert findings(config, "fail") == []
    assert not any(row.exists for row in topic_table(config))
    ensure_topics(config)
    found = [finding.what for finding in findings(config, "ok")]
    for what in (
        f"broker {any_broker} answers over PLAINTEXT",
        f"topics {config.log.namespace}.* are as expected",
        f"GiB free on disk at {tmp_path}",
        "of memory available",
        f"model {model} loads: 0.0",
        "torch 2",
    ):
        assert any(what in line for line in found), what


def test_topics_that_contradict_the_design_are_named(
    any_broker: str, make_config: ConfigMaker, model: str, tmp_path: Path
) -> None:
    before = make_config(any_broker, log={"partitions": 2})
    ensure_topics(before)
    after = make_config(
        any_broker, log={"namespace": before.log.namespace}, policy={"model": model}, run={"folder": tmp_path}
    )
    (first, *others) = findings(after, "fail")
    assert first.what == f"topic {topic_name(after, 'tasks')}: partitions is 2, expected 4"
    assert first.advice.startswith("set log.partitions = 2")
    by_setting = [spec for spec in ENTITIES.values() if spec.partitions(before.log) != spec.partitions(after.log)]
    assert len(others) == len(by_setting) - 1 > 0


def test_a_topic_that_is_missing_among_others_is_named(log_config: Config) -> None:
    admin = make_admin(log_config, "test")
    admin.delete_topics([topic_name(log_config, "dlq")])
    admin.close()
    assert any(topic_name(log_config, "dlq") in finding.what for finding in findings(log_config, "fail"))


def test_an_unreachable_broker_and_a_missing_model_are_both_named_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = Config.model_validate(
        {
            "broker": {"kind": "external", "bootstrap_servers": f"127.0.0.1:{port}"},
            "policy": {"model": str(tmp_path / "nothing")},
        }
    )
    started = time.monotonic()
    model, broker = findings(config, "fail")
    assert time.monotonic() - started < 60
    assert "connection refused" in broker.advice
    assert "no model at" in model.what


def test_a_broker_of_our_own_is_checked_without_starting_it(tmp_path: Path, model: str) -> None:
    config = {"policy": {"model": model}, "run": {"folder": tmp_path}}
    assert findings(Config.model_validate(config), "fail") == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = Config.model_validate({**config, "broker": {"port": server.getsockname()[1]}})
        assert [finding.what for finding in findings(taken, "fail")] == [f"port {taken.broker.port} is in use"]
    home = Config.model_validate({**config, "broker": {"kind": "kafka", "kafka_home": tmp_path}})
    (finding,) = findings(home, "fail")
    assert "holds no Apache Kafka" in finding.advice
    assert list(tmp_path.iterdir()) == []


def test_a_setting_of_the_algorithm_that_has_no_effect_is_warned_of(tmp_path: Path, model: str) -> None:
    config = Config(
        policy={"model": model}, run={"folder": tmp_path}, algorithm={"kl": "k1", "kl_coef": 0.1},
        trainers={"other": {"algorithm": {"kl": "k3"}}},
    )  # fmt: skip
    warnings = [finding for finding in findings(config, "warn") if finding.what == "algorithm grpo"]
    assert [finding.advice.partition(":")[0] for finding in warnings] == ["algorithm.kl = 'k1' in the loss"]
