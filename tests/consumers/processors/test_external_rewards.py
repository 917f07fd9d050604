"""External rewards join on real brokers: early, late, revised and repeated, also when the worker is killed."""

from __future__ import annotations

import random
import time
from typing import Any

from brokers import ConfigMaker
from processor_worker import committed, experience, read_until, wait_for

from consumers.audit.audit import audit
from producers.rewards import RewardProducer
from rft.config import Config
from rft.log.changelog import read_changelog
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.codec import decode
from schemas.events import ScoredExperience, Waiting

GROUPS, SIZE = 30, 2
SAMPLES = [(number, sample) for number in range(GROUPS) for sample in range(SIZE)]


def waiting_config(make_config: ConfigMaker, servers: str, group_deadline_s: float = 300, **external: Any) -> Config:
    processor = {"external": {"required": ["human"], **external}, "rewards": [], "buffer_mb": 0.01}
    config = make_config(servers, processor=processor | {"group_deadline_s": group_deadline_s})
    ensure_topics(config)
    return config


def value_of(number: int, sample: int) -> float:
    return number + sample / 8


def send_rewards(config: Config, samples: list[tuple[int, int]], **fields: Any) -> None:
    with RewardProducer(config) as rewards:
        for number, sample in samples:
            rewards.send(f"train-{number:08d}/{sample}", value_of(number, sample), source="human", **fields)


def waiting_groups(config: Config) -> int:
    """Count the groups in the changelog, without those of which only rewards have come."""
    state = read_changelog(config, "test", "waiting", range(config.log.partitions))
    return sum(decode(value, Waiting).group_size > 0 for held in state.values() for value in held.values())


def balance(config: Config) -> tuple[int, int]:
    """Return how many experiences the audit accounts for, and how many problems it finds."""
    with open_log(config) as view:
        report = audit(config, view, dict.fromkeys(range(config.log.partitions), 10**9))
    return report.published.scored + len(report.published.waiting), len(report.problems)


def test_rewards_join_before_and_after_their_experiences_through_kill_minus_nine(any_broker, make_config, start_worker):
    config = waiting_config(make_config, any_broker, group_deadline_s=30)
    worker = start_worker(config)
    order = SAMPLES.copy()
    random.Random(5).shuffle(order)
    early, late = order[: len(order) // 3], order[len(order) // 3 :]
    send_rewards(config, early)
    with EventWriter(config, "test") as writer:
        for key in SAMPLES:
            writer.send("experiences", experience(*key, size=SIZE))
    # Most groups wait, yet they do not hold back the committed offsets.
    wait_for(lambda: committed(config) == len(SAMPLES), 20, lambda: worker.log)
    assert balance(config) == (len(SAMPLES), 0)
    worker.kill()
    send_rewards(config, late[: len(late) // 2])
    worker = start_worker(config)
    send_rewards(config, [*late, *early[:5], *late[:5]])
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= len(SAMPLES), 40, lambda: worker.log)
    records = [event.record(ScoredExperience) for event in events]
    found = {(r.experience.number, r.experience.sample): r for r in records}
    assert len(records) == len(found) == len(SAMPLES)
    for key, record in found.items():
        assert (record.verdict, record.reward, record.release_size) == ("train", value_of(*key), SIZE)
        assert record.rewards == {"human": value_of(*key)}
    wait_for(lambda: waiting_groups(config) == 0, 60, lambda: worker.log)
    send_rewards(config, SAMPLES[:4], revision=1)
    wait_for(lambda: committed(config, "rewards") == len(SAMPLES) + 10 + len(late) // 2 + 4, 15, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    assert "Traceback" not in worker.log
    assert "after_release" in worker.log


def test_at_the_deadline_the_policy_decides_and_a_stop_does_not_move_it(embedded_broker, make_config, start_worker):
    config = waiting_config(make_config, embedded_broker, deadline_s=6, on_missing="dead_letter")
    worker = start_worker(config)
    began = time.monotonic()
    with EventWriter(config, "test") as writer:
        for sample in range(3):
            writer.send("experiences", experience(0, sample, size=3, prompt="x" * 8000))
    send_rewards(config, [(0, 0), (0, 1)])
    wait_for(lambda: waiting_groups(config) == 1 and committed(config) == 3, 15, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    worker = start_worker(config)
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 4, 40, lambda: worker.log)
    assert time.monotonic() - began >= 6
    [letter] = [event for event in events if event.entity == "dlq"]
    assert dict(letter.headers)["rft.error.stage"] == b"reward"
    assert b"human" in dict(letter.headers)["rft.error.message"]
    assert letter.record().experience_id == "train-00000000/2"
    verdicts = {r.experience.sample: (r.reward, r.cause) for r in (e.record() for e in events if e.entity == "ready")}
    assert verdicts == {0: (0.0, None), 1: (0.125, None), 2: (0.0, "reward_missing")}


def test_malformed_rewards_are_dead_letters_of_their_own_topic(embedded_broker, make_config, start_worker):
    config = waiting_config(make_config, embedded_broker)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        writer.send_bytes("rewards", b"garbage", key=b"train-00000000")
    with EventReader(config, "test", ["dlq"]) as reader:
        [letter] = read_until(reader, lambda seen: len(seen) >= 1, 20, lambda: worker.log)
    headers = dict(letter.headers)
    assert headers["rft.error.topic"].endswith(b".rewards.v1")
    assert headers["rft.error.stage"] == b"decode"
    wait_for(lambda: committed(config, "rewards") == 1, 10, lambda: worker.log)
