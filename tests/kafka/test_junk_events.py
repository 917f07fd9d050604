"""Junk on any topic is set aside as a dead letter and disturbs no role: on Apache Kafka, with tombstones, another
topic's records, and keys and headers that are no text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import ConfigMaker
from synthetic import make_tiny_model, publish, scored

from consumers.audit.audit import audit
from consumers.lineage.queries import trace_experience, trace_step, trace_task, trace_weights
from consumers.replay.reader import external_rewards, trained_refs
from consumers.replay.selection import Range
from consumers.report.build import build_report
from consumers.tracker.role import track
from infra.launcher.watch import Watcher
from producers.conductor.starvation import describe_starvation, read_newest
from producers.importer.progress import published_since, read_progress
from rft.config import Config
from rft.log.opening import open_log
from rft.log.reader import EventReader
from rft.log.topics import ENTITIES, ensure_topics
from rft.log.writer import EventWriter
from rft.weights.distributor import Distributor
from rft.weights.version_folders import VersionFolders
from schemas.events import Member, Task
from tests.consumers.processors.processor_worker import Worker, experience, wait_for
from tests.consumers.trainer.trainer_runs import settings, train
from tests.consumers.written_runs import write_run
from tests.kafka.junk import GARBAGE, junk_letters, letters_of, origins, write_junk
from tests.producers.roles import Log, RoleProcess, announce, task

pytestmark = pytest.mark.kafka
STEPS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def test_a_trainer_starts_trains_and_resumes_with_junk_on_its_topics(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, model: Path
) -> None:
    config = make_config(kafka_broker, **settings(tmp_path, "junk", model, steps=STEPS, checkpoint_interval=100))
    ensure_topics(config)
    topics = {"steps": b"policy", "weights": b"policy", "ready": b"train-00000000", "members": b"explorer-0"}
    for entity, key in topics.items():
        write_junk(config, entity, key)
    publish(config, [scored(number, sample, 2) for number in range(12) for sample in range(2)])
    train(config)
    assert [entry.step for entry in steps_of_readable(config) if entry.kind == "step"] == list(range(1, STEPS + 1))
    write_junk(config, "steps", b"policy")
    for _ in range(2):  # finds its last step behind the junk, and reports no junk twice
        train(config)
    assert [entry.step for entry in steps_of_readable(config) if entry.kind == "step"] == list(range(1, STEPS + 1))
    letters = origins(letters_of(config, "steps"))
    assert len(letters) == len(set(letters)) == 2 * junk_letters("steps")
    ready = origins(letters_of(config, "ready"))
    assert len(set(ready)) == junk_letters("ready")


def steps_of_readable(config: Config) -> list:
    with open_log(config) as view:
        found = []
        for event in view.read("steps"):
            try:
                found.append(event.record())
            except ValueError:
                continue
    return [record for record in found if getattr(record, "kind", "claim") != "claim"]


def test_a_trainer_that_waits_sets_junk_on_steps_aside_and_stays_the_one_that_holds_the_run(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.trainer.claim.CHECK_EVERY_S", 0.2)
    from consumers.trainer import run

    config = make_config(kafka_broker, **settings(tmp_path, "waiting", model, steps=STEPS))
    ensure_topics(config)
    stop, raised = threading.Event(), list[Exception]()

    def trainer() -> None:
        try:
            run(config, stop)
        except Exception as error:  # shown below
            raised.append(error)

    thread = threading.Thread(target=trainer)
    thread.start()
    try:
        wait_for(lambda: raised or len(steps_of_all(config)) == 1, 30)
        write_junk(config, "steps", b"policy")
        wait_for(lambda: raised or len(letters_of(config, "steps")) == junk_letters("steps"), 30)
        publish(config, [scored(number, sample, 2) for number in range(12) for sample in range(2)])
        thread.join(60)
    finally:
        stop.set()
        thread.join(30)
    assert raised == []
    assert [entry.step for entry in steps_of_readable(config) if entry.kind == "step"] == list(range(1, STEPS + 1))


def steps_of_all(config: Config) -> list:
    with open_log(config) as view:
        return list(view.read("steps"))


def test_a_conductor_issues_tasks_among_junk_and_sets_that_on_weights_aside(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, model: Path
) -> None:
    config = make_config(
        kafka_broker,
        run={"folder": str(tmp_path), "name": "conductor"},
        policy={"model": str(model)},
        tasks={"source": "reasoning_gym:spell_backward", "prompt_template": "<3> {word}"},
        rollout={"max_tokens": 16},
        trainer={"groups_per_step": 2, "max_staleness": 1},
        eval={"tasks": 0},
    )
    ensure_topics(config)
    keys = {"tasks": b"train-00000000", "weights": b"policy", "steps": b"policy", "ready": b"eval-00000000-00000000"}
    for entity, key in keys.items():
        write_junk(config, entity, key)

    def numbers() -> set[int]:
        with open_log(config) as view:
            found = [event for event in view.read("tasks") if event.value]
        return {int((event.key or b"")[-8:]) for event in found if (event.key or b"").startswith(b"train-")}

    with EventWriter(config, "test") as writer, RoleProcess("conductor", config) as conductor:
        announce(config, writer, model, 0)
        wait_for(lambda: conductor.process.poll() is not None or numbers() == set(range(4)), 40)
        wait_for(lambda: len(letters_of(config, "weights")) >= junk_letters("weights"), 20)
        for entity, key in keys.items():
            write_junk(config, entity, key)
        wait_for(lambda: len(letters_of(config, "weights")) >= 2 * junk_letters("weights"), 20)
        assert conductor.process.poll() is None
        assert conductor.terminate()[0] == 0
    letters = origins(letters_of(config, "weights"))
    assert len(letters) == len(set(letters)) == 2 * junk_letters("weights")
    assert describe_starvation(3, read_newest(config, "train")).startswith("3 groups in a row")


def bad_tasks() -> list[tuple[Task, str]]:
    from dataclasses import replace

    one = task(90)
    return [
        (replace(one, group_id="train-9/0"), "group_id"),
        (replace(one, group_id="train-9\0"), "group_id"),
        (replace(one, samples=0), "samples"),
        (replace(one, samples=-3), "samples"),
        (replace(one, samples=10**9), "samples"),
        (replace(one, max_tokens=0), "max_tokens"),
        (replace(one, temperature=-1.0), "temperature"),
        (replace(one, top_p=0.0), "top_p"),
        (replace(one, prompt="x" * (4 * 2**20 - 300)), "bytes"),
    ]


def test_an_explorer_rolls_out_tasks_among_junk_on_tasks_and_weights(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, model: Path
) -> None:
    config = make_config(
        kafka_broker,
        run={"folder": str(tmp_path), "name": "explorer"},
        policy={"model": str(model), "device": "cpu"},
        rollout={"workflow": "moody_workflows:moody"},
    )
    ensure_topics(config)
    tasks, weights = write_junk(config, "tasks", b"train-00000001"), write_junk(config, "weights", b"policy")
    assert tasks == weights == 8
    bad = bad_tasks()
    with EventWriter(config, "test") as writer, Log(config, "experiences") as log:
        for one, _ in bad:
            writer.send("tasks", one)
        writer.send("tasks", task(91), key="another key")
        writer.flush()
        announce(config, writer, model, 0)
        for number in range(8):
            writer.send("tasks", task(number))
        writer.flush()
        with RoleProcess("explorer", config) as explorer:
            expected = {f"train-{number:08d}/{sample}" for number in range(8) for sample in range(2)}
            found = log.wait(
                "experiences",
                lambda found: {one.experience_id for one in found} >= expected or explorer.process.poll() is not None,
            )
            assert {one.experience_id for one in found} == expected
            write_junk(config, "weights", b"policy")
            announce(config, writer, model, 1)
            writer.send("tasks", task(8, min_version=1))
            writer.flush()
            log.wait("experiences", lambda found: len(found) == len(expected) + 2)
            assert explorer.terminate()[0] == 0
    letters = letters_of(config, "tasks")
    assert len(set(origins(letters))) == junk_letters("tasks") + len(bad) + 1
    messages = [(dict(letter.headers)["rft.error.message"] or b"").decode() for letter in letters]
    for _, field in bad:
        assert any(field in message for message in messages), (field, messages)


def test_a_distributor_of_weights_sets_junk_on_members_aside_and_hears_the_members(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config(
        kafka_broker, run={"folder": str(tmp_path), "name": "members"}, weights={"transport": "collective"}
    )
    ensure_topics(config)
    with EventWriter(config, "test") as writer:
        folders = VersionFolders(config, {}, threading.Event())
        distributor = Distributor(config, writer, folders, None, client_id="test")
        try:
            write_junk(config, "members", b"explorer-1")
            for receivers in (10**12, -1, 1):
                member = Member(
                    member_id="explorer-1", role="explorer", engine="e", state="here", version=0, sha256="",
                    address="a", heartbeat_at=0, stats={}, transport="collective", backend=config.weights.backend,
                    receivers=receivers,
                )  # fmt: skip
                writer.send("members", member)
            writer.flush()
            wait_for(lambda: "explorer-1" in distributor._state.members, 20)
            wait_for(lambda: len(letters_of(config, "members")) == junk_letters("members") + 2, 20)
            assert distributor._error is None
        finally:
            distributor.close(drain=False)


def test_processors_restore_waiting_groups_among_junk_on_their_changelog(
    kafka_broker: str, make_config: ConfigMaker, start_worker: Callable[[Config], Worker]
) -> None:
    """Junk under the group's own key replaces its state on the log, and a stranger's tombstone deletes it there."""
    processor = {"external": {"required": ["human"]}, "rewards": [], "group_deadline_s": 300}
    config = make_config(kafka_broker, processor=processor, log={"partitions": 1})
    ensure_topics(config)
    worker = start_worker(config)
    with EventWriter(config, "test") as writer:
        for number in range(3):
            writer.send("experiences", experience(number, 0, size=1))
    saved = {b"train-%08d" % number for number in range(3)}
    wait_for(lambda: keys_of(config, "waiting") >= saved, 30, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    with EventWriter(config, "stranger") as writer:
        writer.send_bytes("waiting", GARBAGE, key=b"train-00000000")
        writer.send_bytes("waiting", None, key=b"train-00000001")
        writer.send_bytes("waiting", GARBAGE, key=b"\xff stranger")
    worker = start_worker(config)
    worker.kill()  # right after it has restored the groups
    worker = start_worker(config)
    from producers.rewards import RewardProducer

    with RewardProducer(config) as rewards:
        for number in range(3):
            rewards.send(f"train-{number:08d}/0", 0.5, source="human")
    with Log(config, "ready") as log:
        found = log.wait("ready", lambda found: len(found) >= 3)
    assert {(one.experience.number, one.reward) for one in found} == {(number, 0.5) for number in range(3)}
    wait_for(lambda: len(set(origins(letters_of(config, "waiting")))) == 3, 20, lambda: worker.log)
    assert worker.stop() == 0, worker.log
    assert "Traceback" not in worker.log


def keys_of(config: Config, entity: str) -> set[bytes]:
    with open_log(config) as view:
        return {event.key for event in view.read(entity) if event.key and event.value}


@pytest.fixture
def written_log(kafka_broker: str, make_config: ConfigMaker, tmp_path: Path) -> Config:
    """A small finished run among junk on all its topics."""
    config = make_config(
        kafka_broker,
        run={"folder": str(tmp_path), "name": "written"},
        trainer={"steps": 3, "groups_per_step": 2},
        eval={"tasks": 0},
        processor={"external": {"required": ["human"]}, "rewards": []},
        trackers={"use": ["jsonl"]},
    )
    ensure_topics(config)
    for entity in ENTITIES:
        if entity != "dlq":
            write_junk(config, entity, b"policy" if entity in ("steps", "weights") else b"train-00000000")
    write_run(config)
    for entity in ENTITIES:
        write_junk(config, entity, b"policy" if entity in ("steps", "weights") else b"train-00000000")
    return config


def test_readers_that_publish_no_dead_letters_count_junk_and_go_on(written_log: Config) -> None:
    config = written_log
    report = build_report(config)
    assert report["steps"] == 3
    assert report["experiences"]["trained"] == 18
    assert report["unreadable"]["steps"] == 2 * junk_letters("steps")
    with open_log(config) as view:
        audited = audit(config, view)
        assert audited.trained[0].steps == 3
        assert audited.trained[0].trained == 18
        tracked = track(config, view, 10.0)
        assert tracked.points >= 3
        assert tracked.unreadable > 0
        assert trace_weights(config, view, 3).total_steps == 3
        assert len(trace_step(config, view, 2).experiences) == 6
        assert trace_experience(config, view, "train-00000000/1").outcome.startswith("trained by policy")
        assert len(trace_task(config, view, "train-00000000").experiences) == 3
        assert len(trained_refs(view, "policy", Range(1, 3))) == 18
        assert external_rewards(view) == []
    assert describe_starvation(3, read_newest(config, "train")).startswith("3 groups in a row")


def test_the_launchers_watcher_shows_progress_behind_junk(written_log: Config) -> None:
    with Watcher(written_log) as watcher:
        deadline = time.monotonic() + 20
        while watcher.facts.step < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert watcher.facts.step == 3
        assert watcher.facts.version == 3


def test_an_importer_finds_its_rows_among_events_whose_ids_are_no_text(
    kafka_broker: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "response": "b"}\n')
    config = make_config(
        kafka_broker,
        run={"folder": str(tmp_path), "name": "import"},
        imports=[{"name": "rows", "path": str(source), "kind": "demonstrations"}],
    )
    ensure_topics(config)
    write_junk(config, "experiences", b"rows-0")
    found = published_since(config, config.imports[0], read_progress(config, config.imports[0]))
    assert found is not None
    assert all(isinstance(one, str) for one in found)


def test_every_reader_in_this_file_reads_from_the_log_itself(written_log: Config) -> None:
    with EventReader(written_log, "test", ["steps"]) as reader:
        assert sum(reader.end_offsets().values()) >= 2 * 8 + 3
