"""The live log and its archive return the same events in the same order, and neither skips what is missing."""

from __future__ import annotations

import itertools
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.config import Config
from rft.errors import ArchiveError, BrokerError, MissingRangeError
from rft.log.archive import ArchiveFile, ArchiveStore, FileWriter
from rft.log.archive.files import plan
from rft.log.archive.view import ArchiveView
from rft.log.events import Event
from rft.log.opening import open_log
from rft.log.topics import topic_name
from rft.log.views import LogView
from rft.log.writer import EventWriter

ConfigMaker = Callable[..., Config]


def write_archive(config: Config, url: str, events: list[Event], bounds: dict[int, list[int]]) -> None:
    """Write an archive. ``bounds``: for each partition of ``ready``, where its files begin, and the end of the last."""
    store, topic = ArchiveStore(url), topic_name(config, "ready")
    store.add_topics({topic: len(bounds)}, {})
    for partition, offsets in bounds.items():
        for first, end in itertools.pairwise(offsets):
            writer = FileWriter(store, topic, partition, first, "null")
            for event in events:
                if event.partition == partition and first <= event.offset < end:
                    writer.write(event)
            writer.finish(end)


def event(partition: int, offset: int, timestamp_ms: int | None = None) -> Event:
    headers = (("a", b"1"), ("a", None))
    value = f"{partition}:{offset}".encode()
    return Event("ready", partition, offset, offset if timestamp_ms is None else timestamp_ms, b"k", value, headers)


@pytest.fixture
def archived(tmp_path: Path) -> LogView:
    """Archive two partitions of ``ready``: offsets 5 to 24 in three files, and none."""
    config, url = Config(), str(tmp_path / "archive")
    write_archive(config, url, [event(0, n) for n in range(5, 25)], {0: [5, 9, 20, 25], 1: []})
    return ArchiveView(config, url)


def offsets(events: Iterator[Event]) -> list[int]:
    return [event.offset for event in events]


def test_an_archive_knows_where_it_begins_and_ends(archived: LogView) -> None:
    assert archived.entities() == ("ready",)
    assert archived.begin_offsets("ready") == {0: 5, 1: 0}
    assert archived.end_offsets("ready") == {0: 25, 1: 0}


@pytest.mark.parametrize(("start", "end"), [(5, 25), (6, 24), (9, 20), (8, 21), (20, 25), (12, 12), (7, 8)])
def test_a_range_is_read_exactly(archived: LogView, start: int, end: int) -> None:
    assert offsets(archived.read("ready", start={0: start}, end={0: end})) == list(range(start, end))


def test_one_event_is_fetched_as_it_was(archived: LogView) -> None:
    for offset in (5, 8, 9, 24, 19, 20):
        assert archived.fetch("ready", 0, offset) == event(0, offset)


@pytest.mark.parametrize(("start", "end", "missing"), [(0, 25, (0, 5)), (6, 40, (25, 40)), (30, 31, (30, 31))])
def test_what_an_archive_does_not_hold_is_named(
    archived: LogView, start: int, end: int, missing: tuple[int, int]
) -> None:
    with pytest.raises(MissingRangeError, match="ready, partition 0") as caught:
        archived.read("ready", start={0: start}, end={0: end})
    assert (caught.value.start, caught.value.end) == missing


def test_a_missing_file_is_named_before_the_first_event_is_read(tmp_path: Path) -> None:
    config, url = Config(), str(tmp_path)
    write_archive(config, url, [event(0, n) for n in range(25)], {0: [0, 9, 20, 25]})
    (tmp_path / ArchiveFile(topic_name(config, "ready"), 0, 9, 20).path).unlink()
    view = ArchiveView(config, url)
    with pytest.raises(MissingRangeError, match="offsets 9 to 19 are missing; the next event is from 1970-01-01"):
        view.read("ready")
    with pytest.raises(MissingRangeError):
        view.fetch("ready", 0, 10)
    assert offsets(view.read("ready", start={0: 20})) == list(range(20, 25))


def test_offsets_that_compaction_removed_are_no_gap_but_hold_no_event(tmp_path: Path) -> None:
    config = Config()
    write_archive(config, str(tmp_path), [event(0, n) for n in (0, 1, 7, 9)], {0: [0, 5, 10]})
    view = ArchiveView(config, str(tmp_path))
    assert offsets(view.read("ready")) == [0, 1, 7, 9]
    for offset in (3, 5, 8):
        with pytest.raises(MissingRangeError, match="Compaction or a transaction"):
            view.fetch("ready", 0, offset)


def test_overlapping_files_are_read_once(tmp_path: Path) -> None:
    config = Config()
    for bounds in ([0, 10], [5, 15], [0, 3]):
        write_archive(config, str(tmp_path), [event(0, n) for n in range(15)], {0: bounds})
    assert offsets(ArchiveView(config, str(tmp_path)).read("ready")) == list(range(15))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    config = Config()
    write_archive(config, str(tmp_path), [event(0, n) for n in range(5)], {0: [0, 5]})
    path = tmp_path / ArchiveFile(topic_name(config, "ready"), 0, 0, 5).path
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match="is damaged"):
        list(ArchiveView(config, str(tmp_path)).read("ready"))


def test_a_topic_that_was_not_archived_is_not_taken_for_an_empty_one(archived: LogView) -> None:
    with pytest.raises(ArchiveError, match=r"does not hold rft\.steps\.v1, only rft\.ready\.v1"):
        archived.end_offsets("steps")


def test_a_folder_without_an_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive"):
        open_log(Config(), str(tmp_path))
    with pytest.raises(ArchiveError, match="is no archive"):
        open_log(Config.model_validate({"run": {"folder": tmp_path}}))


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=3), st.data())
def test_partitions_are_interleaved_by_time_and_each_keeps_its_order(
    stamps: list[list[int]], data: st.DataObject
) -> None:
    from rft.log.views import merge

    partitions = [[event(p, n, stamp) for n, stamp in enumerate(line)] for p, line in enumerate(stamps)]
    merged = list(merge([iter(line) for line in partitions]))
    for number, line in enumerate(partitions):
        assert [e for e in merged if e.partition == number] == line
    # Whenever two partitions both have an event to offer, the lower (timestamp, partition, offset) went first.
    heads = [0] * len(partitions)
    for e in merged:
        offers = [line[heads[p]] for p, line in enumerate(partitions) if heads[p] < len(line)]
        assert e == min(offers, key=lambda o: (o.timestamp_ms, o.partition, o.offset))
        heads[e.partition] += 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=6),
    st.integers(0, 25),
    st.integers(0, 10),
)
def test_a_plan_covers_a_range_or_names_what_it_lacks(spans: list[tuple[int, int]], start: int, length: int) -> None:
    files = [ArchiveFile("t", 0, first, first + size) for first, size in spans]
    needed, missing = plan(files, start, start + length)
    wanted = set(range(start, start + length))
    held = {offset for file in files for offset in range(file.first, file.end)}
    assert {offset for a, b in missing for offset in range(a, b)} == wanted - held
    assert wanted & held <= {offset for file in needed for offset in range(file.first, file.end)}


def test_names_of_files_say_what_they_hold() -> None:
    file = ArchiveFile("a.b-c.ready.v1", 12, 5, 70)
    assert ArchiveFile.parse(file.name) == file
    assert ArchiveFile.parse(file.name + ".part") is None


def publish(config: Config, count: int) -> None:
    rng = random.Random(1)
    with EventWriter(config, "writer") as writer:
        for n in range(count):
            writer.send_bytes("ready", rng.randbytes(rng.randrange(300)), key=f"group-{n // 3}".encode())


def test_the_live_log_is_read_whole_and_each_partition_in_order(any_config: Config) -> None:
    publish(any_config, 3000)
    with open_log(any_config) as view:
        first, second = list(view.read("ready")), list(view.read("ready"))
        ends = view.end_offsets("ready")
    assert first == second
    assert len(first) == 3000
    for partition, end in ends.items():
        assert [e.offset for e in first if e.partition == partition] == list(range(end))


def test_the_archive_of_a_log_is_read_in_the_same_order_as_the_log(any_config: Config, tmp_path: Path) -> None:
    from consumers.archiver import run

    url = str(tmp_path / "archive")
    config = any_config.model_copy(update={"archive": any_config.archive.model_copy(update={"url": url})})
    publish(config, 1000)
    run(config, threading.Event(), once=True)
    with open_log(config) as live, open_log(config, url) as archived:
        assert list(live.read("ready")) == list(archived.read("ready"))
        start, end = {0: 10, 1: 20, 2: 0, 3: 40}, {0: 100, 1: 20, 2: 5}
        assert list(live.read("ready", start=start, end=end)) == list(archived.read("ready", start=start, end=end))
        for partition, last in live.end_offsets("ready").items():
            assert live.fetch("ready", partition, last - 1) == archived.fetch("ready", partition, last - 1)


def test_what_the_live_log_does_not_hold_yet_is_named(any_config: Config) -> None:
    publish(any_config, 30)
    with open_log(any_config) as view:
        end = view.end_offsets("ready")[0]
        with pytest.raises(MissingRangeError, match="The log ends before them"):
            view.fetch("ready", 0, end)
        with pytest.raises(MissingRangeError) as caught:
            view.read("ready", end={0: end + 7})
    assert (caught.value.start, caught.value.end) == (end, end + 7)


@pytest.mark.kafka
def test_what_retention_deleted_from_the_live_log_is_named_with_its_time(
    kafka_broker: str, make_config: ConfigMaker
) -> None:
    from kafka import TopicPartition

    from rft.log.clients import make_admin
    from rft.log.topics import ensure_topics

    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    publish(config, 30)
    admin = make_admin(config, "test")
    admin.delete_records({TopicPartition(topic_name(config, "ready"), 0): 12})
    admin.close()
    with open_log(config) as view:
        with pytest.raises(
            MissingRangeError, match=r"offsets 3 to 11 are missing; the next event is from 20"
        ) as caught:
            view.read("ready", start={0: 3})
        assert caught.value.since_ms == view.fetch("ready", 0, 12).timestamp_ms
        with pytest.raises(MissingRangeError, match="offset 11 are missing"):
            view.fetch("ready", 0, 11)
        assert offsets(view.read("ready")) == list(range(12, 30))


@pytest.mark.kafka
def test_transaction_markers_at_the_end_do_not_hold_up_a_reader(kafka_broker: str, make_config: ConfigMaker) -> None:
    from rft.log.clients import make_producer
    from rft.log.topics import ensure_topics

    config = make_config(kafka_broker, log={"partitions": 1})
    ensure_topics(config)
    producer = make_producer(config, "transactional", transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    for n in range(3):
        producer.begin_transaction()
        producer.send(topic_name(config, "ready"), value=str(n).encode(), key=b"k")
        producer.commit_transaction()
    producer.close()
    with open_log(config) as view:
        assert offsets(view.read("ready")) == [0, 2, 4]
        with pytest.raises(MissingRangeError, match="Compaction or a transaction"):
            view.fetch("ready", 0, 5)
        assert view.fetch("ready", 0, 4).value == b"2"


def test_a_dead_embedded_brokers_error_points_to_the_archive() -> None:
    broker = {"kind": "embedded", "bootstrap_servers": "127.0.0.1:1", "connect_timeout_s": 1}
    with pytest.raises(BrokerError, match=r"--archive .*/runs/run/archive"):
        open_log(Config.model_validate({"broker": broker}))
