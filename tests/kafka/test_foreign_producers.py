"""Producers that partition by another function, or whose clocks are wrong, on Apache Kafka; and a group that waited for
rewards until the log had deleted it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import ConfigMaker
from deleting import delete_before
from synthetic import make_tiny_model

from producers.conductor.core import Conductor
from producers.conductor.evaluation import evaluation_plans
from producers.conductor.pacing import Pace
from producers.rewards import RewardProducer
from rft.config import Config
from rft.log.clients import make_producer
from rft.log.record_checks import key_partition
from rft.log.topics import ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import Reward, TrainingStep
from tests.consumers.processors.processor_worker import Worker, committed, experience, wait_for
from tests.consumers.trainer.trainer_runs import settings
from tests.kafka.junk import letters_of
from tests.producers.roles import Log

pytestmark = pytest.mark.kafka
EXTERNAL = {"external": {"required": ["human"], "deadline_s": 600}, "rewards": [], "min_group_size": 1}
HOUR_MS = 3_600_000


def test_events_in_another_partition_than_their_keys_are_dead_letters_at_once(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker]
) -> None:
    config = make_config(kafka_broker, processor=EXTERNAL)
    ensure_topics(config)
    worker = start_worker(config)
    group = "train-00000007"
    right = key_partition(group.encode(), config.log.partitions)
    wrong = (right + 1) % config.log.partitions
    reward = encode(Reward(f"{group}/0", group, "human", 1.0, 1))
    with EventWriter(config, "librdkafka") as writer:
        writer.send_bytes("rewards", reward, key=group.encode(), partition=wrong)
        writer.send_bytes("experiences", encode(experience(7, 0, size=1)), key=group.encode(), partition=wrong)
        writer.send("experiences", experience(7, 0, size=1))
        writer.flush()
        wait_for(lambda: letters_of(config, "rewards") and letters_of(config, "experiences"), 20, lambda: worker.log)
        writer.send_bytes("rewards", reward, key=group.encode(), partition=right)
    for entity in ("rewards", "experiences"):
        [letter] = letters_of(config, entity)
        message = (dict(letter.headers)["rft.error.message"] or b"").decode()
        assert f"belongs to partition {right} of {config.log.partitions}" in message
    with Log(config, "ready") as log:
        [scored] = log.wait("ready", lambda found: len(found) >= 1)
    assert (scored.verdict, scored.reward) == ("train", 1.0)


def test_groups_of_producers_with_wrong_clocks_wait_for_their_rewards_and_are_named(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker]
) -> None:
    """One sample's timestamp is of 1970, one is 8 days behind, one is 50 min ahead (Kafka accepts up to an hour)."""
    config = make_config(kafka_broker, processor=EXTERNAL | {"group_deadline_s": 60}, log={"partitions": 1})
    ensure_topics(config)
    worker = start_worker(config)
    now_ms = int(time.time() * 1000)
    producer = make_producer(config, "wrong-clocks")
    topic = topic_name(config, "experiences")
    for sample, stamp in enumerate((1000, now_ms - 8 * 24 * HOUR_MS, now_ms + 3_000_000)):
        one = experience(0, sample, size=3)
        producer.send(topic, key=one.group_id.encode(), value=encode(one), timestamp_ms=stamp).get(10)
        wait_for(lambda n=sample: committed(config) == n + 1, 20, lambda: worker.log)
    producer.close()
    with RewardProducer(config) as rewards:
        for sample in range(3):
            rewards.send(f"train-00000000/{sample}", float(sample), source="human")
    with Log(config, "ready") as log:
        found = log.wait("ready", lambda found: len(found) >= 3)
    assert {(one.verdict, one.reward, one.release_size) for one in found} == {("train", float(n), 3) for n in range(3)}
    assert worker.stop() == 0, worker.log
    assert "wrong clocks: 1 events up to" in worker.log
    assert ", 2 up to" in worker.log
    assert "s ahead of the time of its arrival" in worker.log


def test_a_group_deleted_while_it_waited_is_retired_and_frees_its_pacing_slot(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker], tmp_path: Path
) -> None:
    """Over processor, trainer and the conductor's core: the next task is issued, and the deletion is counted."""
    from consumers.trainer import run

    model = make_tiny_model(tmp_path / "model")
    sections = settings(tmp_path, "deleted", model, steps=5, groups_per_step=1, max_staleness=0)
    external = {"required": ["human"], "deadline_s": 12, "skip_deleted": True}
    processor = EXTERNAL | {"external": external, "buffer_mb": 0.001}
    config = make_config(kafka_broker, **sections, processor=processor, eval={"tasks": 0})
    ensure_topics(config)
    conductor = Conductor(Pace.from_config(config), evaluation_plans(config), config.trainer.model_key)
    conductor.caught_up()
    with EventWriter(config, "test") as writer:
        announce_version(config, conductor)
        assert conductor.pacer.issued == 1
        assert conductor.pacer.in_flight == 1
        worker = start_worker(config)
        for sample in range(2):
            writer.send("experiences", experience(0, sample, size=2, prompt="x" * 4000))
        writer.flush()
        wait_for(lambda: committed(config) == 2, 20, lambda: worker.log)
    worker.kill()
    delete_before(config, "experiences", 2)
    worker = start_worker(config)
    stop = threading.Event()
    trainer = threading.Thread(target=run, args=(config, stop))
    trainer.start()
    try:
        with Log(config, "steps") as log:
            entries = log.wait("steps", lambda found: any(0 in one.retired for one in found), 60)
    finally:
        stop.set()
        trainer.join(30)
    for entry in entries:
        conductor.step(entry)
    assert conductor.pacer.retired == 1
    assert conductor.pacer.issued == 2, "the slot is free for the next task"
    [retirement] = [entry for entry in entries if isinstance(entry, TrainingStep) and 0 in entry.retired]
    assert {ref.cause for ref in retirement.dropped} == {"filtered"}
    assert worker.stop() == 0, worker.log
    assert "deleted 2" in worker.log


def announce_version(config: Config, conductor: Conductor) -> None:
    from schemas.events import WeightVersion

    conductor.step(
        WeightVersion(config.trainer.model_key, 0, 0, "checkpoint", "weights/v0", "00", 9, False, int(time.time()))
    )
