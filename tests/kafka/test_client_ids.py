"""A role's clients have one client id, so that quotas and logs of the cluster can name it; and they know their rack."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker
from kafka_scripts import run_script

from consumers.processors.faust_backend.app import make_app
from consumers.processors.faust_backend.private import PromptTransport
from producers.rewards import RewardProducer
from rft.log.clients import make_admin, make_consumer
from rft.log.topics import consumer_group, ensure_topics

pytestmark = pytest.mark.timeout(120)


NAME = """
import sys
from infra.roles import run_role
from rft.config import Config
from rft.log.client_names import client_name
config = Config.model_validate({"log": {"namespace": "team"}})
print(client_name(config, "audit"))
sys.exit(run_role("trainer", config, lambda config, _: print(client_name(config, "trainer-policy-exact"))))
"""


def test_all_clients_of_a_role_have_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["team.audit", "team.trainer"], done.stderr


@pytest.mark.kafka
def test_the_cluster_knows_processors_by_their_name(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any]
) -> None:
    config = make_config(kafka_broker)
    ensure_topics(config)
    start_worker(config)
    admin = make_admin(config, "test")
    group = admin.describe_groups([consumer_group(config, "processors")])
    admin.close()
    (members,) = (one["members"] for one in group.values())
    assert [member["client_id"] for member in members] == [f"{config.log.namespace}.processor"]


@pytest.mark.kafka
def test_a_quota_slows_the_clients_that_it_names_and_no_others(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft.log.client_names._process", [])  # as in a program that is no command of ours
    config = make_config(kafka_broker, log={"partitions": 1, "compression": "none"})
    ensure_topics(config)
    quota = f"--entity-type clients --entity-name {config.log.namespace}.rewards --add-config producer_byte_rate=12000"
    run_script(f'kafka-configs.sh --bootstrap-server "$BOOTSTRAP" --alter {quota}\n', tmp_path, kafka_broker)

    def seconds(client_id: str) -> float:
        began = time.monotonic()
        with RewardProducer(config, client_id=client_id) as rewards:
            for _ in range(5):
                rewards.send("train-00000012/3", 0.5, source="human", metadata={"text": "x" * 50_000})
                rewards.flush()
        return time.monotonic() - began

    slowed, others = seconds("rewards"), seconds("judge")
    assert slowed > others + 2, (slowed, others)


def test_consumers_tell_their_rack(embedded_broker: str, make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config(embedded_broker, broker={"rack": "zone-b"})
    consumer = make_consumer(config, "test")
    assert consumer.config["client_rack"] == "zone-b"
    consumer.close()
    transport = make_app(config, tmp_path).transport
    assert isinstance(transport, PromptTransport)
    assert transport.rack == "zone-b"
