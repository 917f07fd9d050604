"""Programs that share no code with ours read experiences and give rewards, on Apache Kafka."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from brokers import ConfigMaker

from rft.config import Config
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter
from tests.consumers.processors.processor_worker import Worker, experience
from tests.kafka.foreign_clients import foreign, transact, transactional_producer
from tests.kafka.junk import letters_of
from tests.producers.roles import Log

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
PROGRAMS = sorted(path.name for path in CLIENTS.glob("*.py"))


def run(name: str, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a client outside the repository."""
    return subprocess.run(
        [sys.executable, "-P", CLIENTS / name, *arguments],
        input=given, capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_documentation_shows_the_programs_that_are_tested(name: str) -> None:
    text = (CLIENTS / name).read_text(encoding="utf-8")
    assert f"```python\n{text}```" in (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
    }
    ours = {"schemas", "rft", "producers", "consumers", "infra", "tests"}
    assert not {module.partition(".")[0] for module in imported if module} & ours


@pytest.mark.kafka
def test_rewards_of_a_strangers_program_reach_the_trainer(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker]
) -> None:
    external = {"required": ["stranger"], "deadline_s": 600}
    config = make_config(kafka_broker, processor={"external": external, "rewards": [], "min_group_size": 1})
    ensure_topics(config)
    worker = start_worker(config)
    groups, size = range(6), 3
    published = [experience(number, sample, size=size) for number in groups for sample in range(size)]
    with EventWriter(config, "test") as writer:
        for one in (*published, published[0]):
            writer.send("experiences", one)
        writer.send_bytes("experiences", b"junk", key=b"train-00000000")
    with transactional_producer(config) as producer:
        aborted = experience(99, 0, size=1)
        transact(producer, config, [foreign("experiences", aborted.group_id, aborted)], commit=False)

    schemas = ROOT / "schemas" / "avsc"
    read = run("read_experiences.py", kafka_broker, topic_name(config, "experiences"), schemas / "history")
    found = {one["experience_id"]: one for one in map(json.loads, read.stdout.splitlines())}
    assert len(read.stdout.splitlines()) == len(found)
    assert found.keys() == {one.experience_id for one in published}
    for one in published:
        got = found[one.experience_id]
        assert (got["prompt"], got["response"], got["number"]) == (one.prompt, one.response, one.number)
        for name in ("tokens", "action_mask", "logprobs", "versions"):
            assert np.array_equal(got[name], getattr(one, name)), name
    assert "no single-object encoding" in read.stderr

    rewards = {name: float(len(got["response"]) + got["sample"]) for name, got in found.items()}
    lines = "".join(json.dumps({"experience_id": name, "value": value}) + "\n" for name, value in rewards.items())
    sent = run(
        "send_rewards.py", kafka_broker, topic_name(config, "rewards"), schemas / "Reward.avsc", "stranger", given=lines
    )
    assert sent.stdout == f"{len(rewards)} rewards are on {topic_name(config, 'rewards')}\n"
    with Log(config, "ready") as log:
        scored = log.wait("ready", lambda events: len(events) >= len(published), 30)
    assert {one.experience.experience_id: one.reward for one in scored} == rewards
    assert {one.verdict for one in scored} == {"train"}
    assert letters_of(config, "rewards") == []
    assert worker.stop() == 0, worker.log
