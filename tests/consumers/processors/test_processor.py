"""One processor, run as a process, keeps its promises on a real broker."""

from __future__ import annotations

import socket
import time
from collections import Counter

import pytest
from processor_worker import committed, experience, read_until, wait_for

from rft.log.reader import EventReader
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import ScoredExperience


def test_groups_arrive_complete_and_once_and_all_is_committed_when_the_worker_stops(any_config, start_worker):
    worker = start_worker(any_config)
    with EventWriter(any_config, "test") as writer:
        for sample in (3, 1, 0, 1, 2):
            for number in range(25):
                writer.send("experiences", experience(number, sample))
    with EventReader(any_config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 100, 30, lambda: worker.log)
    assert {event.entity for event in events} == {"ready"}
    records = [event.record(ScoredExperience) for event in events]
    assert Counter(record.experience.experience_id for record in records) == Counter(
        f"train-{number:08d}/{sample}" for number in range(25) for sample in range(4)
    )
    assert {record.reward for record in records if record.experience.sample % 2} == {1.0}
    for event, record in zip(events, records, strict=True):
        assert event.key == record.experience.group_id.encode()
        assert dict(event.headers)["ce_type"] == b"stream_rft.ScoredExperience"
        assert (record.verdict, record.release_size) == ("train", 4)
    assert worker.stop() == 0, worker.log
    assert "Traceback" not in worker.log
    assert committed(any_config) == 125


def test_a_stopped_worker_leaves_open_groups_to_the_next_one(log_config, start_worker):
    worker = start_worker(log_config)
    with EventWriter(log_config, "test") as writer:
        for sample in range(3):
            writer.send("experiences", experience(1, sample))
            writer.send("experiences", experience(2, sample, size=3))
    with EventReader(log_config, "test", ["ready"]) as reader:
        read_until(reader, lambda seen: len(seen) == 3, 20, lambda: worker.log)
        began = time.monotonic()
        assert worker.stop() == 0, worker.log
        assert time.monotonic() - began < 10
        assert committed(log_config) <= 3
        second = start_worker(log_config)
        with EventWriter(log_config, "test") as writer:
            writer.send("experiences", experience(1, 3))
        events = read_until(reader, lambda seen: len(seen) >= 4, 20, lambda: second.log)
    ids = {e.record(ScoredExperience).experience.experience_id for e in events}
    assert {f"train-00000001/{sample}" for sample in range(4)} <= ids


def test_a_group_that_stays_incomplete_is_released_at_its_deadline(embedded_broker, make_config, start_worker):
    config = make_config(embedded_broker, processor={"group_deadline_s": 1.0})
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        for sample in range(3):
            writer.send("experiences", experience(0, sample))
    with EventReader(config, "test", ["ready"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 3, 20, lambda: worker.log)
    assert [event.record(ScoredExperience).release_size for event in events] == [3, 3, 3]
    wait_for(lambda: committed(config) == 3, 10, lambda: worker.log)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("raise KeyError(response)", b"KeyError"),
        ("raise SystemExit(3)", b"SystemExit"),
        ("return 1e308", b"1e+308"),
        ("__import__('time').sleep(1e6)", b"picky did not end within 3 s (processor.reward_deadline_s)"),
    ],
)
def test_a_failing_reward_function_costs_its_group_one_sample(
    embedded_broker, make_config, start_worker, tmp_path, monkeypatch, fault, named
):
    (tmp_path / "picky_rewards.py").write_text(
        "def picky(response, answer, **_):\n"
        "    if response in ('tac', 'dog'):\n"
        "        return float(response == answer)\n"
        f"    {fault}\n"
    )
    monkeypatch.chdir(tmp_path)
    processor = {"rewards": [{"function": "picky_rewards:picky"}], "reward_deadline_s": 3.0}
    config = make_config(embedded_broker, processor=processor)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        for sample in range(3):
            writer.send("experiences", experience(0, sample))
        writer.send("experiences", experience(0, 3, response="cow"))
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 5, 60, lambda: worker.log)
    [letter] = [event for event in events if event.entity == "dlq"]
    headers = dict(letter.headers)
    assert (headers["rft.error.stage"], headers["rft.error.class"]) == (b"score", b"RewardError")
    assert named in headers["rft.error.message"]
    verdicts = {r.experience.sample: (r.verdict, r.cause) for r in (e.record() for e in events if e.entity == "ready")}
    assert verdicts == {**dict.fromkeys(range(3), ("train", None)), 3: ("filtered", "score_failed")}
    assert "a sample of train-00000000 is filtered as score_failed (1 so far): reward function picky" in worker.log
    wait_for(lambda: committed(config) == 4, 10, lambda: worker.log)


def test_an_unreachable_broker_is_named_within_ten_seconds(make_config, start_worker):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{unused.getsockname()[1]}"
        config = make_config(servers, broker={"connect_timeout_s": 2.0})
        worker = start_worker(config, ready=False)
        assert worker.process.wait(15) == 1
    assert servers in worker.log
    assert "Traceback" not in worker.log


def test_an_open_group_holds_back_the_committed_offset_although_later_events_are_done(
    embedded_broker, make_config, start_worker
):
    config = make_config(embedded_broker, log={"partitions": 1})
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        for number in (1, 0):
            writer.send("experiences", experience(number, 0))
        for number in (1, 2, 3):
            for sample in range(4):
                writer.send("experiences", experience(number, sample))
    with EventReader(config, "test", ["ready"]) as reader:
        read_until(reader, lambda seen: len(seen) >= 12, 20, lambda: worker.log)
    assert worker.stop() == 0
    assert committed(config) == 1


def test_an_experience_at_the_size_limit_is_either_refused_or_readable_when_scored(
    embedded_broker, make_config, start_worker
):
    config = make_config(embedded_broker, log={"max_message_bytes": 64 * 1024}, processor={"min_group_size": 1})
    worker = start_worker(config)
    bare = len(encode(experience(0, 0, size=1, prompt="")))
    sizes = [64 * 1024 - left for left in (0, 10, 2000, 4000)]
    with EventWriter(config, "test") as writer:
        for number, size in enumerate(sizes):
            writer.send("experiences", experience(number, 0, size=1, prompt="x" * (size - bare - 2)))
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= len(sizes), 20, lambda: worker.log)
    assert {event.entity for event in events} == {"ready", "dlq"}
    for event in events:
        if event.entity == "ready":
            assert event.record(ScoredExperience).verdict == "train"
