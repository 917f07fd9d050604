"""Every event of every topic is in the archive, exactly once and byte for byte, whatever happens to the archiver."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from deleting import delete_before

from consumers.archiver import run
from infra.broker import open_broker
from rft.config import Config
from rft.config_toml import masked, to_toml
from rft.errors import ArchiveError, BrokerError, MissingRangeError
from rft.log.archive import ArchiveStore
from rft.log.events import Event
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, ensure_topics, topic_name
from rft.log.writer import EventWriter

ConfigMaker = Callable[..., Config]
EventKey = tuple[str, int, int]


@pytest.fixture
def config(any_broker: str, make_config: ConfigMaker, tmp_path: Path) -> Config:
    made = make_config(any_broker, archive={"url": str(tmp_path / "archive"), "roll_s": 0.4, "roll_mb": 0.05})
    ensure_topics(made)
    return made


def archive_now(config: Config) -> None:
    run(config, threading.Event(), once=True)


def on_the_log(config: Config) -> dict[EventKey, Event]:
    with EventReader(config, "reference", ENTITIES) as reader:
        ends, found = reader.end_offsets(), {}
        while not reader.caught_up(ends):
            found.update({(e.entity, e.partition, e.offset): e for e in reader.poll(0.2)})
    return found


def in_the_archive(config: Config) -> list[Event]:
    with open_log(config, config.archive_url) as view:
        return [event for entity in ENTITIES for event in view.read(entity)]


def assert_same(config: Config) -> None:
    archived = in_the_archive(config)
    keys = [(e.entity, e.partition, e.offset) for e in archived]
    assert len(keys) == len(set(keys))
    assert dict(zip(keys, archived, strict=True)) == on_the_log(config)


def publish(config: Config, count: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    with EventWriter(config, "writer") as writer:
        for n in range(count):
            key = rng.choice([None, b"", f"group-{n // 4}".encode()])
            value = rng.choice([None, b"", rng.randbytes(rng.randrange(2000))]) if key else rng.randbytes(9)
            headers = [("a", rng.randbytes(3)), ("a", b"again"), ("empty", b"")][: rng.randrange(4)]
            writer.send_bytes(rng.choice(["experiences", "ready", "dlq", "tasks"]), value, key=key, headers=headers)


def test_keys_values_headers_and_positions_come_back_unchanged(config: Config) -> None:
    publish(config, 500)
    archive_now(config)
    assert len(in_the_archive(config)) == 500
    assert_same(config)


def test_archiving_again_continues_where_it_ended_and_repeats_nothing(config: Config) -> None:
    for seed in range(3):
        publish(config, 100, seed)
        archive_now(config)
    archive_now(config)
    assert_same(config)


def test_a_stopped_archiver_finishes_its_files_with_all_that_was_written_before(config: Config) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(config, stop))
    thread.start()
    publish(config, 300)
    stop.set()
    thread.join(25)
    assert not thread.is_alive()
    assert_same(config)
    assert not list(Path(config.archive_url).rglob("*.part"))


def test_if_the_broker_dies_the_events_already_read_are_archived(make_config: ConfigMaker, tmp_path: Path) -> None:
    broker = open_broker(Config(), tmp_path)
    assert broker is not None
    config = make_config(broker.start(), archive={"url": str(tmp_path / "archive")})
    ensure_topics(config)
    publish(config, 100)
    expected = on_the_log(config)
    stop, failures = threading.Event(), []

    def archiver() -> None:
        try:
            run(config, stop)
        except BrokerError as error:
            failures.append(error)

    thread = threading.Thread(target=archiver)
    thread.start()
    wait_until_it_writes(config, since=0, pattern="*.part")
    time.sleep(1)
    broker.stop()
    stop.set()
    thread.join(25)
    assert not thread.is_alive()
    assert failures
    assert {(e.entity, e.partition, e.offset): e for e in in_the_archive(config)} == expected


def test_a_file_with_its_final_name_is_complete(config: Config) -> None:
    publish(config, 400)
    archive_now(config)
    store = ArchiveStore(config.archive_url)
    for entity in ENTITIES:
        for files in store.files(topic_name(config, entity)).values():
            for earlier, later in itertools.pairwise(files):
                assert earlier.end == later.first


def test_compressed_files_hold_the_same_events(any_broker: str, make_config: ConfigMaker, tmp_path: Path) -> None:
    config = make_config(any_broker, archive={"url": str(tmp_path / "a"), "codec": "deflate"})
    ensure_topics(config)
    publish(config, 200)
    archive_now(config)
    assert_same(config)


def test_an_archive_may_be_at_any_fsspec_url(log_config: Config) -> None:
    url = f"memory://{log_config.log.namespace}/archive"
    config = log_config.model_copy(update={"archive": log_config.archive.model_copy(update={"url": url})})
    publish(config, 100)
    archive_now(config)
    publish(config, 100, 1)
    archive_now(config)
    assert_same(config)


def test_two_archivers_do_not_work_in_one_folder(config: Config) -> None:
    with ArchiveStore(config.archive_url).locked(), pytest.raises(ArchiveError, match="another archiver"):
        archive_now(config)


def test_an_archive_of_another_log_is_not_continued(config: Config) -> None:
    publish(config, 50)
    archive_now(config)
    store = ArchiveStore(config.archive_url)
    (first, *_) = store.files(topic_name(config, "ready"))[0]
    path = Path(config.archive_url) / first.path
    path.rename(path.with_name(path.name.replace(f"-{first.end:020d}", f"-{first.end + 1000:020d}")))
    with pytest.raises(ArchiveError, match="another log"):
        archive_now(config)


@pytest.mark.kafka
def test_what_retention_deleted_before_it_was_copied_is_named(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    settings = {"url": str(tmp_path / "archive")}
    config = make_config(kafka_broker, archive=settings, log={"partitions": 1})
    ensure_topics(config)
    with EventWriter(config, "writer") as writer:
        for n in range(20):
            writer.send_bytes("ready", str(n).encode(), key=b"k")
    archive_now(config)
    with EventWriter(config, "writer") as writer:
        for n in range(20, 40):
            writer.send_bytes("ready", str(n).encode(), key=b"k")
    delete_before(config, "ready", 30)
    with pytest.raises(MissingRangeError, match=r"ready, partition 0: offsets 20 to 29 are missing"):
        archive_now(config)
    skipping = config.model_copy(update={"archive": config.archive.model_copy(update={"skip_missing": True})})
    archive_now(skipping)
    with open_log(config, config.archive_url) as view:
        assert [int(e.value or b"") for e in view.read("ready", start={0: 30})] == list(range(30, 40))
        with pytest.raises(MissingRangeError) as caught:
            list(view.read("ready"))
    assert (caught.value.start, caught.value.end) == (20, 30)


PROGRAM = """
import resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
from pathlib import Path
from infra.roles import run_role
from rft.config_sources import load_config
sys.exit(run_role("archiver", load_config(Path(sys.argv[1]))))
"""


@pytest.fixture
def archiver(config: Config, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts an archiver in a process of its own, with a limit on the size of the files that it may write."""
    path = tmp_path / "config.toml"
    path.write_text(to_toml(masked(config)))
    started: list[subprocess.Popen[bytes]] = []

    def start(largest_file: int = -1) -> subprocess.Popen[bytes]:
        with (tmp_path / "archiver.log").open("ab") as log:
            command = [sys.executable, "-c", PROGRAM, str(path), str(largest_file)]
            process = subprocess.Popen(command, env=os.environ, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until_it_writes(config: Config, since: float, pattern: str = "*.avro*") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in Path(config.archive_url).rglob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime > since:
                    return
        time.sleep(0.02)
    raise AssertionError("the archiver writes nothing")


def test_an_archiver_killed_at_any_moment_and_restarted_loses_and_repeats_nothing(
    config: Config, archiver: Callable[..., subprocess.Popen[bytes]]
) -> None:
    rng = random.Random(7)
    writing = threading.Event()

    def write() -> None:
        seed = 0
        while not writing.wait(0.05):
            publish(config, 60, seed := seed + 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            process = archiver()
            wait_until_it_writes(config, since=time.time())
            # Files are finished after 0.4 s or 50 kB, so kills hit all parts of a file's life.
            time.sleep(1.2 * rng.random())
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        writing.set()
        writer.join()
    assert in_the_archive(config)
    publish(config, 60)
    last, started = archiver(), time.time()
    wait_until_it_writes(config, started)
    last.terminate()
    assert last.wait(25) == 0
    assert_same(config)


def test_the_archiver_waits_for_a_full_disk_and_loses_nothing(
    config: Config, tmp_path: Path, archiver: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = archiver(largest_file=4000)
    publish(config, 200)
    log, deadline = tmp_path / "archiver.log", time.monotonic() + 60
    while "trying again every 5 s" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert "File too large" in log.read_text()
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    wait_until_it_writes(config, since=time.time())
    process.terminate()
    assert process.wait(25) == 0, log.read_text()
    assert_same(config)
