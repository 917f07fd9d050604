"""Garbage, killed workers and rebalances lose nothing, and good events are not held up."""

from __future__ import annotations

import random
import struct

import pytest
from processor_worker import committed, experience, read_until, wait_for

from rft.log.reader import EventReader
from rft.log.topics import topic_name
from rft.log.writer import EventWriter
from schemas.codec import encode
from schemas.events import ScoredExperience, Task

LARGE = 7 * 1024 * 1024


def garbage(count: int, large: int, seed: int = 7) -> list[bytes]:
    """Return values of five kinds: random bytes, truncated, another record, NaN among the logprobs, 7 MiB."""
    dice = random.Random(seed)
    good = encode(experience(999, 0))
    nan = good.replace(struct.pack("<f", -0.5), struct.pack("<f", float("nan")))
    assert nan != good
    task = Task("train-00000999", 999, "train", "x", "p", "a", 4, 8, 1.0, 1.0, 0, 0, 1)
    kinds = [lambda: dice.randbytes(dice.randint(1, 300)), lambda: good[: dice.randint(11, len(good) - 1)]]
    kinds += [lambda: encode(task), lambda: nan]
    values = [kinds[n % 4]() for n in range(count - large)]
    return values + [dice.randbytes(1024) * (LARGE // 1024) for _ in range(large)]


def test_a_thousand_malformed_events_are_dead_letters_and_good_ones_pass(log_config, start_worker):
    worker = start_worker(log_config)
    bad = garbage(1000, large=10)
    random.Random(1).shuffle(bad)
    good = [experience(number, sample) for sample in range(4) for number in range(50)]
    sent = {}
    with EventWriter(log_config, "test") as writer:
        for number, value in enumerate(bad):
            key = f"key-{number}".encode() if number % 3 else None
            headers = [("mine", str(number).encode()), ("mine", b"twice")]
            sent[number] = (key, value, headers, writer.send_bytes("experiences", value, key=key, headers=headers))
            if number < len(good):
                writer.send("experiences", good[number])
        writer.flush(60)
    with EventReader(log_config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 1200, 90, lambda: worker.log)
    ids = [event.record(ScoredExperience).experience.experience_id for event in events if event.entity == "ready"]
    assert sorted(ids) == sorted(one.experience_id for one in good)
    letters = {int(event.headers[0][1]): event for event in events if event.entity == "dlq"}
    assert len(letters) == len(bad)
    for number, (key, value, headers, future) in sent.items():
        letter, sent_to = letters[number], future.get(1)
        assert (letter.key, letter.value) == (key, value)
        assert list(letter.headers[:2]) == headers
        cause = dict(letter.headers[2:])
        assert cause["rft.error.stage"] == b"decode"
        assert cause["rft.error.class"] == b"DecodeError"
        assert cause["rft.error.message"]
        assert cause["rft.error.topic"] == topic_name(log_config, "experiences").encode()
        assert (int(cause["rft.error.partition"]), int(cause["rft.error.offset"])) == (
            sent_to.partition,
            sent_to.offset,
        )
        assert cause["rft.error.attempt"] == b"1"
        assert int(cause["rft.error.first-failure"]) > 1_600_000_000_000
    assert worker.process.poll() is None, worker.log
    wait_for(lambda: committed(log_config) == 1200, 10, lambda: worker.log)


def test_a_tombstone_and_a_key_that_is_not_the_group_are_dead_letters(log_config, start_worker):
    worker = start_worker(log_config)
    with EventWriter(log_config, "test") as writer:
        writer.send_bytes("experiences", None, key=b"k").get(5)
        writer.send_bytes("experiences", encode(experience(0, 0)), key=b"other").get(5)
    with EventReader(log_config, "test", ["dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= 2, 20, lambda: worker.log)
    stages = {event.key: dict(event.headers)["rft.error.stage"] for event in events}
    assert stages == {b"k": b"decode", b"other": b"validate"}


@pytest.mark.parametrize("kills", [1])
def test_kill_minus_nine_loses_nothing(any_config, start_worker, kills):
    """Every experience is in ``ready``, in a complete release of its group, however often the worker is killed."""
    groups = 150
    worker = start_worker(any_config)
    reader = EventReader(any_config, "test", ["ready"])
    writer = EventWriter(any_config, "test")
    events = []
    order = [(number, sample) for number in range(groups) for sample in range(4)]
    random.Random(3).shuffle(order)
    for turn in range(kills + 1):
        share = order[turn :: kills + 1]
        for number, sample in share:
            writer.send("experiences", experience(number, sample))
        if turn < kills:
            writer.flush()
            events += reader.poll(1.0)
            worker.kill()
            worker = start_worker(any_config)
    writer.flush()

    def missing(seen):
        return set(order) - {(r.number, r.sample) for r in (e.record().experience for e in [*events, *seen])}

    events += read_until(reader, lambda seen: not missing(seen), 60, lambda: worker.log)
    releases: dict[tuple[str, str], set[int]] = {}
    for record in (event.record(ScoredExperience) for event in events):
        assert record.release_size == 4
        releases.setdefault((record.experience.group_id, record.release_id), set()).add(record.experience.sample)
    assert len({group_id for group_id, _ in releases}) == len(releases) == groups
    assert all(samples == {0, 1, 2, 3} for samples in releases.values())
    wait_for(lambda: committed(any_config) == groups * 4, 15, lambda: worker.log)
    reader.close()
    writer.close()


def test_workers_that_come_and_go_share_partitions_and_lose_no_open_group(any_config, start_worker):
    groups = 60
    first = start_worker(any_config)
    with EventWriter(any_config, "test") as writer, EventReader(any_config, "test", ["ready"]) as reader:
        for sample in range(2):
            for number in range(groups):
                writer.send("experiences", experience(number, sample))
        writer.flush()
        second = start_worker(any_config)
        wait_for(lambda: 0 < len(first.partitions()) < 4, 30, lambda: first.log + second.log)
        assert sorted(first.partitions() + second.partitions()) == [0, 1, 2, 3]
        for number in range(groups):
            writer.send("experiences", experience(number, 2))
        writer.flush()
        assert first.stop() == 0, first.log
        wait_for(lambda: second.partitions() == [0, 1, 2, 3], 30, lambda: second.log)
        for number in range(groups):
            writer.send("experiences", experience(number, 3))
        writer.flush()
        events = read_until(reader, lambda seen: len(seen) >= groups * 4, 40, lambda: second.log)
    found = [(r.experience.number, r.experience.sample, r.release_size) for r in (event.record() for event in events)]
    assert sorted(found) == [(number, sample, 4) for number in range(groups) for sample in range(4)]
