"""Only committed transactions of foreign producers count, and their markers hold no reader up."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import ConfigMaker
from foreign_clients import Foreign, foreign, send_all, transact, transactional_producer

from consumers.archiver import run as archive
from consumers.audit import audit
from consumers.report.build import read_summary
from consumers.trainer.ready_reader import ReadyReader
from infra.doctor.diagnose import diagnose
from infra.launcher.watch import Watcher
from producers.explorer.backlog import Delivery
from producers.explorer.feed import TaskFeed
from producers.importer.progress import ImportProgress, published_since
from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.changelog import read_changelog
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.events import Event
from rft.log.exact_reader import ExactReader
from rft.log.offset_queries import OffsetReader
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, ensure_topics, topic_name
from rft.log.writer import EventWriter
from schemas.events import Reward, ScoredExperience, Task
from tests.consumers.processors.processor_worker import experience, read_until, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
SIZE = 2
AT_ONCE_S = 5.0
"""Catching up with a few events takes milliseconds; a reader that waits for an event that never comes takes forever."""


@pytest.fixture
def config(kafka_broker: str, make_config: ConfigMaker, tmp_path: Path) -> Config:
    made = make_config(
        kafka_broker,
        log={"partitions": 1},
        run={"folder": str(tmp_path), "name": "test"},
        archive={"url": str(tmp_path / "archive")},
        imports=[{"name": "chats", "path": str(tmp_path / "none.jsonl")}],
    )
    ensure_topics(made)
    return made


@pytest.fixture
def producer(config: Config) -> Iterator[Any]:
    with transactional_producer(config) as made:
        yield made


def group(number: int, **fields: Any) -> list[Foreign]:
    samples = [experience(number, sample, size=SIZE, **fields) for sample in range(SIZE)]
    return [foreign("experiences", one.group_id, one) for one in samples]


def reward(number: int, sample: int, value: float) -> Foreign:
    group_id = f"train-{number:08d}"
    return foreign("rewards", group_id, Reward(f"{group_id}/{sample}", group_id, "human", value, 1, 0, "{}"))


def read_to_end(reader: EventReader, within_s: float = AT_ONCE_S) -> list[Event]:
    """Read until the reader says that it has caught up."""
    events: list[Event] = []
    ends, deadline = reader.end_offsets(), time.monotonic() + within_s
    while not reader.caught_up(ends):
        assert time.monotonic() < deadline, f"at {reader.positions}, the log ends at {ends}"
        events += reader.poll(0.2)
    return events


def fill(producer: Any, config: Config, entity: str = "experiences") -> tuple[list[Any], list[Any]]:
    """Write an aborted and a committed event in turn, twice, then an aborted one. Return both kinds' positions."""
    aborted, committed = [], []
    for number in range(2):
        key = f"train-{number:08d}".encode()
        aborted += transact(producer, config, [Foreign(entity, key, b"aborted")], commit=False)
        committed += transact(producer, config, [Foreign(entity, key, b"committed")], commit=True)
    aborted += transact(producer, config, [Foreign(entity, b"last", b"aborted")], commit=False)
    return aborted, committed


def test_no_experience_gets_a_reward_whose_transaction_was_aborted(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[..., Any]
) -> None:
    """Nor does an aborted reward stand in the way of a committed one of the same id with another value."""
    processor = {
        "external": {"required": ["human"], "deadline_s": 8, "on_missing": "dead_letter"},
        "rewards": [],
        "group_deadline_s": 8,
    }
    config = make_config(kafka_broker, processor=processor)
    ensure_topics(config)
    worker = start_worker(config)
    groups = range(4)
    pairs = [(number, sample) for number in groups for sample in range(SIZE)]
    with transactional_producer(config) as producer:
        transact(producer, config, [reward(*pair, 0.25) for pair in pairs[::2]], commit=False)
        transact(producer, config, [event for number in groups for event in group(number)], commit=True)
        transact(producer, config, [reward(*pair, 0.25) for pair in pairs], commit=False)
        transact(producer, config, [reward(*pair, 0.75) for pair in pairs if pair[0] % 2], commit=True)
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= len(pairs) + len(pairs) // 2, 40, lambda: worker.log)
    letters = [event for event in events if event.entity == "dlq"]
    scored = [event.record(ScoredExperience) for event in events if event.entity == "ready"]
    scored = [one for one in scored if one.verdict == "train"]
    rewarded = {(one.experience.number, one.experience.sample): one.reward for one in scored}
    assert rewarded == {pair: 0.75 for pair in pairs if pair[0] % 2}
    assert {dict(letter.headers)["rft.error.stage"] for letter in letters} == {b"reward"}
    assert len(letters) == len(pairs) - len(rewarded)
    with open_log(config) as view:
        assert audit(config, view).ok


def test_an_aborted_experience_is_neither_scored_nor_audited_nor_archived(
    config: Config, producer: Any, start_worker: Callable[..., Any]
) -> None:
    """An id whose first content was aborted is scored by the content that was committed."""
    worker = start_worker(config)
    transact(producer, config, group(0) + group(1, response="aborted"), commit=False)
    transact(producer, config, group(1, response="committed"), commit=True)
    transact(producer, config, group(2), commit=False)
    with EventReader(config, "test", ["ready", "dlq"]) as reader:
        events = read_until(reader, lambda seen: len(seen) >= SIZE, 30, lambda: worker.log)
    found = [event.record(ScoredExperience).experience for event in events]
    assert {(one.number, one.sample, one.response) for one in found} == {(1, 0, "committed"), (1, 1, "committed")}
    with open_log(config) as view:
        report = audit(config, view)
    assert report.ok
    assert (report.published.published, report.published.scored) == (SIZE, SIZE)
    archive(config, threading.Event(), once=True)
    with open_log(config, config.archive_url) as view:
        assert [event.value for event in view.read("experiences")] == [
            event.value for event in group(1, response="committed")
        ]
        archived = audit(config, view)
    assert archived.ok
    assert archived.published.published == SIZE


def test_every_reader_leaves_out_what_was_aborted(config: Config, producer: Any) -> None:
    aborted, committed = fill(producer, config)
    with EventReader(config, "test", ["experiences"]) as reader:
        assert [(event.partition, event.offset) for event in read_to_end(reader)] == committed
    exact = ExactReader(config, "test", "experiences")
    found = exact.read([LogPosition(*position) for position in aborted + committed], stall_s=10)
    exact.close()
    assert sorted(found) == committed
    with open_log(config) as view:
        assert [(event.partition, event.offset) for event in view.read("experiences")] == committed
        assert view.fetch("experiences", *committed[0]).value == b"committed"
        for position in aborted:
            with pytest.raises(MissingRangeError, match="a transaction left no event there"):
                view.fetch("experiences", *position)
    fill(producer, config, "waiting")
    state = read_changelog(config, "test", "waiting", [0])
    assert state == {0: {b"train-00000000": b"committed", b"train-00000001": b"committed"}}


@pytest.mark.parametrize("commit", [True, False])
def test_a_reader_has_caught_up_with_a_partition_that_ends_in_a_marker(
    config: Config, producer: Any, commit: bool
) -> None:
    """At once, wherever it starts: at the beginning, at the last event, or between that and the marker."""
    positions = transact(producer, config, [Foreign("tasks", b"k", b"v")] * 3, commit=commit)
    expected = [b"v"] * (3 if commit else 0)
    with EventReader(config, "test", ["tasks"]) as reader:
        assert [event.value for event in read_to_end(reader)] == expected
        assert reader.end_offsets() == {EntityPartition("tasks", 0): positions[-1][1] + 2}
    for offset in (positions[-1][1], positions[-1][1] + 1, positions[-1][1] + 2):
        with EventReader(config, "test", ["tasks"], positions={EntityPartition("tasks", 0): offset}) as reader:
            assert [event.offset for event in read_to_end(reader)] == [
                p for _, p in positions if commit and p >= offset
            ]


def test_an_import_goes_on_where_a_foreign_transaction_ends(config: Config, producer: Any) -> None:
    transact(producer, config, [Foreign("experiences", b"chats-1", b"v", (("ce_id", b"chats-1/0"),))], commit=True)
    transact(producer, config, [Foreign("experiences", b"chats-2", b"v", (("ce_id", b"chats-2/0"),))], commit=False)
    source = config.imports[0]
    began = time.monotonic()
    assert published_since(config, source, ImportProgress(topic_name(config, "experiences"))) == {"chats-1/0"}
    assert time.monotonic() - began < AT_ONCE_S


def test_reports_archives_and_the_trainer_read_logs_whose_partitions_end_in_markers(
    config: Config, producer: Any
) -> None:
    for entity in ENTITIES:
        transact(producer, config, [Foreign(entity, b"k", b"v")], commit=False)
    began = time.monotonic()
    assert read_summary(config, within_s=30).complete
    assert time.monotonic() - began < 2 * AT_ONCE_S
    archive(config, threading.Event(), once=True)
    reader = ReadyReader(config, None)
    assert reader.poll(0.5) == []
    assert reader.caught_up
    reader.close()


def test_the_launcher_follows_a_log_with_markers(config: Config, producer: Any) -> None:
    task = Task("train-00000000", 0, "train", "s", "p", "a", 8, 64, 1.0, 1.0, 0, 0, 1)
    transact(producer, config, [foreign("tasks", task.group_id, task)], commit=True)
    transact(producer, config, [Foreign("steps", b"policy", b"junk")], commit=False)
    with Watcher(config) as watcher:
        wait_for(lambda: watcher.facts.lag, AT_ONCE_S)


def test_an_explorer_takes_committed_tasks_only(config: Config, producer: Any) -> None:
    tasks = [Task(f"train-{n:08d}", n, "train", "s", "p", "a", 1, 64, 1.0, 1.0, 0, 0, 1) for n in range(3)]
    events = [foreign("tasks", task.group_id, task) for task in tasks]
    transact(producer, config, events[:1], commit=False)
    transact(
        producer, config, [foreign("tasks", tasks[1].group_id, dataclasses.replace(tasks[1], prompt="x"))], commit=False
    )
    transact(producer, config, events[1:], commit=True)
    delivered: list[Delivery] = []
    feed = TaskFeed(config, "test", deliver=delivered.extend, saturated=lambda: False, reject=lambda *_: None)
    feed.start()
    try:
        wait_for(lambda: len(delivered) >= 2, 20)
        time.sleep(0.5)
    finally:
        feed.close(10)
    assert feed.error is None
    assert [(one.task.number, one.task.prompt) for one in delivered] == [(1, "p"), (2, "p")]


def test_an_open_transaction_holds_back_what_follows_it_and_is_named(
    config: Config, producer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is the last stable offset, so no one waits for events that may never count."""
    monkeypatch.setattr("rft.log.open_transactions.HELD_BACK_S", 1.0)
    first = transact(producer, config, [Foreign("experiences", b"k", b"before")], commit=True)
    producer.begin_transaction()
    opened = send_all(producer, config, [Foreign("experiences", b"k", b"open")])
    with EventWriter(config, "test") as writer:
        writer.send_bytes("experiences", b"behind", key=b"k").get(10)
    at = EntityPartition("experiences", 0)
    with EventReader(config, "test", ["experiences"]) as reader, caplog.at_level(logging.WARNING):
        assert [event.value for event in read_to_end(reader)] == [b"before"]
        assert reader.end_offsets()[at] == opened[0][1]
        ends = OffsetReader(config, "test")
        assert list(ends.ask([reader_topic := _topic_partition(config)]).values()) == [opened[0][1]], reader_topic
        ends.close()
        wait_for(lambda: reader.poll(0.1) or "open transaction" in caplog.text, AT_ONCE_S)
        text = next(record.getMessage() for record in caplog.records if "open transaction" in record.getMessage())
        assert topic_name(config, "experiences") in text
        assert f"offset {opened[0][1]}" in text
        producer.commit_transaction()
        assert [event.value for event in read_to_end(reader)] == [b"open", b"behind"]
    assert first[0][1] < opened[0][1]


def test_processors_and_the_doctor_name_an_open_transaction(
    config: Config, producer: Any, start_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("_step_memory", "_model"):
        monkeypatch.setattr(f"infra.doctor.diagnose.{check}", lambda _: iter(()))
    short = "\n".join(
        [
            "import consumers.processors.missed_events as missed, rft.log.open_transactions as open_transactions",
            "missed.HELD_BACK_EVERY_S = open_transactions.HELD_BACK_S = 1.0",
        ]
    )
    worker = start_worker(config, before=short)
    assert not [finding for finding in diagnose(config) if "open transaction" in finding.advice]
    producer.begin_transaction()
    ((_, offset),) = send_all(producer, config, group(0)[:1])
    wait_for(lambda: "open transaction" in worker.log, 60, lambda: worker.log)
    assert f"reading has waited at offset {offset}" in worker.log
    (finding,) = (finding for finding in diagnose(config) if "open transaction" in finding.advice)
    assert finding.level == "warn"
    assert f"{topic_name(config, 'experiences')}, partition 0 can be read to offset {offset}" in finding.what
    producer.abort_transaction()
    wait_for(lambda: not [one for one in diagnose(config) if "open transaction" in one.advice], 10)


def _topic_partition(config: Config) -> Any:
    from kafka import TopicPartition

    return TopicPartition(topic_name(config, "experiences"), 0)
