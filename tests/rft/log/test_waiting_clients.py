"""In a role, every way to the log waits for a broker that is away, and brings the same as if it had not been."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from broker_outages import OwnNode

from rft.config import Config
from rft.errors import BrokerError, OutageError
from rft.log import outages
from rft.log.changelog import read_changelog
from rft.log.coordinates import EntityPartition, LogPosition
from rft.log.exact_reader import ExactReader
from rft.log.offset_queries import committed_offsets, end_offsets
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Member

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

OUTAGE_S = 8.0
"""Longer than a connection may take (4 s), and than a slice of a wait (3 s)."""
ONE = EntityPartition("members", 0)


def member(number: int, size: int = 1) -> Member:
    return Member(
        member_id=f"explorer-{number}", role="explorer", engine="x" * size, state="here", version=0, sha256="",
        address="h:1", heartbeat_at=0, stats={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[OwnNode]:
    node = OwnNode(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """This process waits as a role, until the event is set."""
    monkeypatch.setattr(outages, "_policy", outages._Policy())
    stop = threading.Event()
    outages.wait_for_broker(0, stop)
    return stop


@pytest.fixture
def config(node, make_config) -> Config:
    config = make_config(node.servers, log={"partitions": 1})
    ensure_topics(config)
    with EventWriter(config, "test") as one:
        for number in range(3):
            one.send("members", member(number))
    return config


def test_every_question_to_the_log_waits_for_its_answer(node, config, stop):
    follower = EventReader(config, "follower", ["members"])
    exact = ExactReader(config, "exact", "members")
    idle = EventReader(config, "idle", ["members"])
    publisher = EventWriter(config, "publisher")
    publisher.prepare("members")
    assert len(exact.read([LogPosition(0, 0)])) == 1

    def follow() -> int:
        found = 0
        while found < 4:
            found += len(follower.poll(0.2))
        return found

    def publish() -> int:
        future = publisher.send("members", member(3))
        publisher.flush()
        return int(future.get(0).offset)

    def open_and_read() -> int:
        with EventReader(config, "late", ["members"]) as reader:
            return len(reader.poll(5.0))

    def open_and_write() -> None:
        with EventWriter(config, "late-writer") as late:
            late.wait_for(late.publish_dead_letter(idle.poll(5.0)[0], "decode", ValueError("x")))

    questions = {
        "follow": (follow, 4),
        "publish": (publish, 3),
        "open a reader": (open_and_read, None),
        "open a writer": (open_and_write, None),
        "events at offsets": (lambda: len(exact.read([LogPosition(0, 1), LogPosition(0, 2)])), 2),
        "where the log begins": (lambda: exact.begin_offset(0), 0),
        "end offsets of a reader": (lambda: follower_ends(idle) >= 3, True),
        "end offsets": (lambda: end_offsets(config, "ends", [ONE])[ONE] >= 3, True),
        "committed offsets": (lambda: committed_offsets(config, "committed", "no-group", [ONE]), {}),
        "a changelog": (lambda: len(read_changelog(config, "changelog", "members", [0])[0]) >= 3, True),
        "topics": (lambda: ensure_topics(config), []),
    }
    with ThreadPoolExecutor(len(questions)) as pool:
        node.kill()
        began = time.monotonic()
        answers = {name: pool.submit(ask) for name, (ask, _) in questions.items()}
        while time.monotonic() - began < OUTAGE_S:
            failed = {name: one.exception() for name, one in answers.items() if one.done() and one.exception()}
            assert not failed
            time.sleep(0.2)
        assert str(outages.longest_wait()).startswith("waits for the broker since")
        node.start()
        for name, answer in answers.items():
            expected = questions[name][1]
            found = answer.result(60)
            assert expected is None or found == expected, name
    for client in (follower, exact, idle, publisher):
        client.close()
    assert outages.longest_wait() is None


def follower_ends(reader: EventReader) -> int:
    return reader.end_offsets()[ONE]


def test_a_role_that_is_asked_to_stop_does_not_wait_for_its_answers(node, config, stop, monkeypatch):
    monkeypatch.setattr(outages, "STOP_GRACE_S", 0.5)
    reader = EventReader(config, "stopped", ["members"])
    publisher = EventWriter(config, "stopped-writer")
    publisher.prepare("members")
    with node.away():
        stop.set()
        publisher.send("members", member(9))
        began = time.monotonic()
        for ask in (publisher.flush, reader.end_offsets):
            with pytest.raises(OutageError):
                ask()
        assert time.monotonic() - began < 25
    publisher.close()
    reader.close()


def test_a_command_does_not_wait(node, config, monkeypatch):
    monkeypatch.setattr(outages, "_policy", outages._Policy())
    with node.away():
        began = time.monotonic()
        with pytest.raises(BrokerError, match="connection refused"):
            EventReader(config, "command", ["members"])
        assert time.monotonic() - began < 20


def test_an_event_loop_is_not_blocked_while_the_buffer_is_full_and_the_broker_away(node, config, stop):
    publisher = EventWriter(config, "loop", max_in_flight_bytes=100_000)
    publisher.prepare("members", "dlq")
    before = end_offsets(config, "ends", [ONE])[ONE]
    with node.away():
        longest = 0.0
        for number in range(40):
            began = time.monotonic()
            publisher.send("members", member(number, size=10_000), wait=False)
            longest = max(longest, time.monotonic() - began)
        assert longest < 2
        assert publisher.full, "whoever sends more looks here first"
    publisher.flush()
    assert not publisher.full
    publisher.close()
    assert end_offsets(config, "ends", [ONE])[ONE] == before + 40
