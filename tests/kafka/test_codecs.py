"""Our clients read batches of every codec, compressed by a foreign producer or by the broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brokers import ConfigMaker
from foreign_clients import foreign, foreign_producer, send_all
from kafka.admin import ConfigResource, ConfigResourceType

from infra.doctor.diagnose import diagnose
from rft.config import Config
from rft.log.changelog import read_changelog
from rft.log.clients import make_admin
from rft.log.coordinates import LogPosition
from rft.log.exact_reader import ExactReader
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, contradictions, ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.events import Experience, Reward, ScoredExperience, Task
from tests.consumers.processors.processor_worker import experience, read_until
from tests.producers.roles import Log, RoleProcess, announce

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
CODECS = ("gzip", "snappy", "lz4", "zstd")
SIZE = 2
TOKENS = 3000
"""So that a batch is worth compressing, and longer than one block of any codec."""


def group(number: int) -> list[Experience]:
    mask = np.zeros(TOKENS, dtype=np.uint8)
    mask[TOKENS // 2 :] = 1
    return [
        experience(
            number,
            sample,
            size=SIZE,
            tokens=np.random.default_rng(sample).integers(0, 30_000, TOKENS).astype(np.int32),
            action_mask=mask,
            logprobs=np.where(mask == 1, -0.5, 0).astype(np.float32),
            versions=np.where(mask == 1, 3, -1).astype(np.int32),
        )
        for sample in range(SIZE)
    ]


def compress_topics(config: Config, codec: str) -> None:
    """Have the broker compress every topic with ``codec``, as an operator may."""
    admin = make_admin(config, "test")
    for entity in ENTITIES:
        resource = ConfigResource(
            ConfigResourceType.TOPIC, topic_name(config, entity), configs={"compression.type": codec}
        )
        admin.alter_configs([resource])
    admin.close()


@pytest.mark.parametrize("codec", CODECS)
def test_readers_read_what_a_foreign_producer_compressed(
    kafka_broker: str, make_config: ConfigMaker, codec: str
) -> None:
    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    groups = [group(number) for number in range(20)]
    events = [foreign("experiences", one.group_id, one) for samples in groups for one in samples]
    with foreign_producer(config, compression_type=codec, linger_ms=50) as producer:
        positions = send_all(producer, config, events)
        send_all(producer, config, [event._replace(entity="waiting") for event in events])
    values = [event.value for event in events]
    with EventReader(config, "test", ["experiences"]) as reader:
        read = read_until(reader, lambda seen: len(seen) >= len(events), 20, str)
    assert [event.value for event in read] == values
    exact = ExactReader(config, "test", "experiences")
    found = exact.read([LogPosition(*position) for position in positions[1::7]], stall_s=10)
    exact.close()
    assert [found[position].value for position in sorted(found)] == values[1::7]
    with open_log(config) as view:
        assert [event.value for event in view.read("experiences")] == values
    assert len(read_changelog(config, "test", "waiting", [0])[0]) == len(groups)


def test_processors_read_rewards_and_experiences_of_every_codec(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any]
) -> None:
    config = make_config(kafka_broker, processor={"external": {"required": ["human"]}, "rewards": []})
    ensure_topics(config)
    worker = start_worker(config)
    for number, codec in enumerate(CODECS):
        samples = group(number)
        rewards = [Reward(one.experience_id, one.group_id, "human", 0.5, 1, 0, "{}") for one in samples]
        events = [foreign("experiences", one.group_id, one) for one in samples]
        with foreign_producer(config, compression_type=codec, linger_ms=50) as producer:
            send_all(producer, config, events + [foreign("rewards", one.group_id, one) for one in rewards])
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= SIZE * len(CODECS), 40, lambda: worker.log)
    found = [event.record(ScoredExperience) for event in events]
    assert sorted(one.experience.number for one in found) == sorted(list(range(len(CODECS))) * SIZE)
    assert {one.reward for one in found} == {0.5}


@pytest.mark.parametrize("codec", CODECS)
def test_our_topics_may_be_compressed_by_the_broker(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any], codec: str
) -> None:
    config = make_config(kafka_broker)
    ensure_topics(config)
    compress_topics(config, codec)
    assert ensure_topics(config) == []
    worker = start_worker(config)
    with EventWriter(config, "test") as writer, EventReader(config, "test", ["ready", "dlq"]) as reader:
        for number in range(5):
            for one in group(number):
                writer.send("experiences", one)
        writer.flush()
        events = read_until(reader, lambda seen: len(seen) >= 5 * SIZE, 40, lambda: worker.log)
    assert [event.entity for event in events] == ["ready"] * 5 * SIZE


def test_a_conductor_issues_tasks_to_compressed_topics(
    kafka_broker: str, make_config: ConfigMaker, tiny_model: Path, tmp_path: Path
) -> None:
    config = make_config(
        kafka_broker,
        run={"folder": str(tmp_path), "name": "test"},
        policy={"model": str(tiny_model), "device": "cpu"},
        tasks={"source": "reasoning_gym:spell_backward", "prompt_template": "{word}>"},
        rollout={"max_tokens": 16},
        trainer={"steps": 2, "groups_per_step": 2},
    )
    ensure_topics(config)
    compress_topics(config, "zstd")
    with EventWriter(config, "test") as writer, Log(config, "tasks") as log, RoleProcess("conductor", config):
        announce(config, writer, tiny_model, 0)
        tasks = log.wait("tasks", lambda tasks: len(tasks) >= 2, 60)
    assert all(isinstance(task, Task) for task in tasks)


def test_the_doctor_says_what_to_install_for_a_codec_that_cannot_be_read(
    kafka_broker: str, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(kafka_broker)
    ensure_topics(config)
    monkeypatch.setattr("infra.doctor.diagnose._step_memory", lambda _: iter(()))
    monkeypatch.setattr("infra.doctor.diagnose._model", lambda _: iter(()))
    (found,) = (finding for finding in diagnose(config) if "codecs" in finding.what)
    assert (found.level, found.what) == ("ok", "codecs gzip, snappy, lz4 and zstd can be read")
    monkeypatch.setattr("kafka.codec.zstd", None)
    monkeypatch.setattr("rft.log.codecs.find_spec", lambda _: None)
    findings = [finding for finding in diagnose(config) if "codec" in finding.what]
    assert {finding.level for finding in findings} == {"fail"}
    text = " ".join(f"{finding.what}: {finding.advice}" for finding in findings)
    assert "zstd" in text
    assert "zstandard" in text
    assert "cramjam" in text
    admin = make_admin(config, "test")
    assert contradictions(admin, config) == []
    admin.close()
