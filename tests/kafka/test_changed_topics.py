"""Topics that change during a run end each role soon, with one error that names them and what can be done."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import ConfigMaker
from kafka.admin import KafkaAdminClient, NewPartitions
from kafka.errors import KafkaError
from synthetic import make_tiny_model, publish, scored

from infra import topic_watch
from infra.roles import ROLES
from rft.config import Config
from rft.errors import OtherLogError, TopicChangedError, TopicError
from rft.log.clients import make_admin
from rft.log.topic_identity import TopicMonitor, TopicState, check_same_log, read_topic_ids
from rft.log.topics import ENTITIES, ensure_topics, topic_name, topic_settings
from rft.training.checkpoint import newest_checkpoint
from tests.consumers.processors import processor_worker
from tests.consumers.processors.processor_worker import Worker, wait_for
from tests.consumers.trainer.trainer_runs import settings, steps_of, train

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

ROLE = """
import sys, threading, types
from pathlib import Path
import infra.topic_watch
from infra.roles import ROLES, run_role
from rft.config import Config
infra.topic_watch.CHECK_EVERY_S, infra.topic_watch.GRACE_S = 0.5, 3.0
{more}
sys.exit(run_role({role!r}, Config.model_validate_json(Path(sys.argv[1]).read_text())))
"""
STAND_IN = """
def work(config, stop):
    print("works", flush=True)
    {body}
sys.modules[ROLES[{role!r}].module] = types.SimpleNamespace(run=work)
"""
NOTICED_S = 60.0
CHANGED = 3
"""Exit code of a role that must not be started again."""


@pytest.fixture
def start_role(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """``start_role(config, role, more)`` starts a role as a process; ``more`` is run before."""
    started: list[Worker] = []

    def start(config: Config, role: str, more: str = "") -> Worker:
        started.append(Worker(config, tmp_path, f"{role}-{len(started)}", ROLE.format(role=role, more=more)))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def stand_in(role: str, body: str = "stop.wait()") -> str:
    return STAND_IN.format(role=role, body=body)


def add_partitions(config: Config, entity: str, total: int) -> None:
    admin = make_admin(config, "administrators")
    name = topic_name(config, entity)
    admin.create_partitions({name: NewPartitions(total)})
    # A broker learns of them a moment after the controller.
    wait_for(lambda: len(admin.describe_topics([name])[0]["partitions"]) == total, 20)
    admin.close()


def create_again(config: Config, *entities: str) -> None:
    """Delete topics and create them with the same names and settings."""
    admin = make_admin(config, "administrators")
    try:
        names = {topic_name(config, entity): entity for entity in entities}
        admin.delete_topics(list(names))
        topics = {
            name: {
                "num_partitions": ENTITIES[entity].partitions(config.log),
                "replication_factor": 1,
                "configs": topic_settings(config.log, entity),
            }
            for name, entity in names.items()
        }
        deadline = time.monotonic() + 20
        while True:
            try:
                admin.create_topics(topics)
                return
            except KafkaError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        admin.close()


def end_of(worker: Worker) -> str:
    """Wait until the role has ended as it must, and return its one error."""
    assert worker.process.wait(NOTICED_S) == CHANGED, worker.log
    assert "Traceback" not in worker.log
    [error] = [line for line in worker.log.splitlines() if " ERROR " in line and "kafka" not in line.split(":")[3]]
    return error


def test_every_role_notices_within_a_minute_that_a_topic_has_more_partitions(
    kafka_broker: str, make_config: ConfigMaker, start_role: Callable[..., Worker]
) -> None:
    config = make_config(kafka_broker, log={"partitions": 2})
    ensure_topics(config)
    workers = [start_role(config, role, stand_in(role)) for role in ROLES]
    for worker in workers:
        wait_for(lambda worker=worker: "works" in worker.log, 60, lambda worker=worker: worker.log)
    add_partitions(config, "rewards", 4)
    for worker in workers:
        error = end_of(worker)
        assert f"TopicChangedError: topic {topic_name(config, 'rewards')}: partitions is 4, expected 2" in error
        assert "they have 2 and 4, and Kafka cannot remove partitions: use another log.namespace" in error


def test_a_role_that_does_not_stop_is_ended_with_the_same_error(
    kafka_broker: str, make_config: ConfigMaker, start_role: Callable[..., Worker]
) -> None:
    config = make_config(kafka_broker)
    ensure_topics(config)
    worker = start_role(config, "archiver", stand_in("archiver", "threading.Event().wait()"))
    wait_for(lambda: "works" in worker.log, 60, lambda: worker.log)
    create_again(config, "dlq")
    error = end_of(worker)
    assert f"TopicChangedError: topic {topic_name(config, 'dlq')} was deleted and created again" in error


def test_a_topic_that_changes_as_soon_as_a_role_begins_is_noticed(
    kafka_broker: str, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role does not begin before it knows its topics, however long the first look takes."""
    config, stop, look = make_config(kafka_broker), threading.Event(), topic_watch.check_topics
    ensure_topics(config)

    def look_slowly(config: Config, admin: KafkaAdminClient) -> None:
        time.sleep(3)
        look(config, admin)

    monkeypatch.setattr(topic_watch, "check_topics", look_slowly)
    monkeypatch.setattr(topic_watch, "CHECK_EVERY_S", 0.5)
    changed = f"topic {re.escape(topic_name(config, 'dlq'))} was deleted and created again"

    def work() -> None:
        with topic_watch.TopicWatch(config, stop, lambda _: None):
            create_again(config, "dlq")
            assert stop.wait(NOTICED_S)

    with pytest.raises(TopicChangedError, match=changed):
        work()


@pytest.mark.parametrize("change", ["partitions", "id"])
def test_a_processor_ends_when_its_topic_changes(
    kafka_broker: str, make_config: ConfigMaker, start_role: Callable[..., Worker], change: str
) -> None:
    config = make_config(kafka_broker, log={"partitions": 2})
    ensure_topics(config)
    worker = start_role(config, "processor")
    worker.wait_until_ready(60)
    processor_worker.publish(config, 1, 2)
    name = topic_name(config, "experiences")
    if change == "id":
        create_again(config, "experiences")
        assert f"topic {name} was deleted and created again" in end_of(worker)
    else:
        add_partitions(config, "experiences", 4)
        assert f"topic {name}: partitions is 4, expected 2" in end_of(worker)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def trained(kafka_broker: str, make_config: ConfigMaker, tmp_path: Path, model: Path) -> Config:
    """A run of two steps with its checkpoint, which is to take two more."""
    config = make_config(kafka_broker, **settings(tmp_path, "run", model, steps=2, checkpoint_interval=2))
    publish(config, [scored(number, sample, 4) for number in range(6) for sample in range(4)])
    train(config)
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": 4})})


@pytest.mark.parametrize(
    ("entity", "more"), [("ready", ""), ("steps", ""), ("ready", "infra.topic_watch.CHECK_EVERY_S = 20.0")]
)
def test_a_waiting_trainer_ends_when_a_topic_that_it_reads_is_created_again(
    trained: Config, start_role: Callable[..., Worker], entity: str, more: str
) -> None:
    """In the last case, the trainer's own client may fail before the next look at the topics."""
    worker = start_role(trained, "trainer", more)
    wait_for(lambda: "resuming from" in worker.log, 60, lambda: worker.log)
    time.sleep(1)
    create_again(trained, entity)
    error = end_of(worker)
    assert "TopicChangedError" in error
    assert topic_name(trained, entity) in error
    assert "LogTruncationError" not in error


@pytest.mark.parametrize("entity", ["ready", "experiences", "steps"])
def test_a_checkpoint_is_not_continued_on_another_log(trained: Config, entity: str) -> None:
    before = read_topic_ids(trained)[entity]
    create_again(trained, entity)
    with pytest.raises(OtherLogError) as caught:
        train(trained)
    checkpoint = newest_checkpoint(trained.run.path, "policy")
    assert checkpoint is not None
    for part in (
        f"this is not the log that the checkpoint {checkpoint.folder} stands for",
        f"{topic_name(trained, entity)} was deleted and created again",
        f"{entity} {before} then, {read_topic_ids(trained)[entity]} now",
        "name the cluster that holds the old log",
        f"under another run.name and log.namespace, with policy.model = '{checkpoint.folder}'",
        "log.accept_copy = true",
    ):
        assert part in str(caught.value)
    assert caught.value.exit_code == CHANGED


def test_the_choices_lead_on(trained: Config, make_config: ConfigMaker, kafka_broker: str, tmp_path: Path) -> None:
    create_again(trained, "dlq")
    with pytest.raises(OtherLogError):
        train(trained)
    checkpoint = newest_checkpoint(trained.run.path, "policy")
    assert checkpoint is not None
    new = make_config(kafka_broker, **settings(tmp_path, "new", checkpoint.folder, steps=1))
    publish(new, [scored(number, sample, 4) for number in range(3) for sample in range(4)])
    train(new)
    assert [step.step for step in steps_of(new)] == [1]

    log = trained.log.model_copy(update={"accept_copy": True})
    publish(trained, [scored(number, sample, 4) for number in range(6, 12) for sample in range(4)])
    train(trained.model_copy(update={"log": log}))
    assert [step.step for step in steps_of(trained)] == [1, 2, 3, 4]


def test_a_checkpoint_of_an_earlier_release_is_continued(trained: Config) -> None:
    checkpoint = newest_checkpoint(trained.run.path, "policy")
    assert checkpoint is not None
    assert set(checkpoint.state.topic_ids) == set(ENTITIES)
    file = checkpoint.folder / "trainer" / "state.json"
    state = json.loads(file.read_text())
    del state["topic_ids"]
    file.write_text(json.dumps(state))
    create_again(trained, "dlq")
    publish(trained, [scored(number, sample, 4) for number in range(6, 12) for sample in range(4)])
    train(trained)
    assert [step.step for step in steps_of(trained)] == [1, 2, 3, 4]


def test_the_advice_about_partitions_is_possible_for_all_topics(kafka_broker: str, make_config: ConfigMaker) -> None:
    config = make_config(kafka_broker, log={"partitions": 2})
    ensure_topics(config)
    add_partitions(config, "rewards", 4)
    with pytest.raises(TopicError, match="they have 2 and 4, and Kafka cannot remove partitions") as caught:
        ensure_topics(config)
    assert "set log.partitions" not in str(caught.value)
    keyed = ("tasks", "experiences", "ready", "dlq", "waiting", "turns", "sessions")
    for entity in keyed:
        add_partitions(config, entity, 4)
    with pytest.raises(TopicError, match=r"set log\.partitions = 4 if the topics hold no events of a run yet, or use"):
        ensure_topics(config)
    assert ensure_topics(make_config(kafka_broker, log={"namespace": config.log.namespace, "partitions": 4})) == []
    add_partitions(config, "steps", 2)
    with pytest.raises(TopicError, match=r"steps\.v1: partitions is 2, expected 1; its readers need one order"):
        ensure_topics(config)


def test_brokers_without_topic_ids_and_topics_that_come_later_are_no_change() -> None:
    config, monitor = Config(), TopicMonitor()
    monitor.compare(config, {"ready": None})
    monitor.compare(config, {"ready": TopicState("", 4)})
    monitor.compare(config, {"ready": TopicState("", 4), "steps": TopicState("a", 1)})
    monitor.compare(config, {"ready": TopicState("b", 4), "steps": TopicState("", 1)})
    check_same_log(config, {}, {"ready": "a"}, Path("step-7"))
    check_same_log(config, {"ready": "a"}, {}, Path("step-7"))


def test_a_topic_that_is_missing_once_is_asked_for_again_and_then_named() -> None:
    config, monitor = Config(), TopicMonitor()
    monitor.compare(config, {"ready": TopicState("a", 4)})
    monitor.compare(config, {"ready": None})
    monitor.compare(config, {"ready": TopicState("a", 4)})
    monitor.compare(config, {"ready": None})
    with pytest.raises(TopicChangedError, match=r"topic rft\.ready\.v1 was deleted during the run"):
        monitor.compare(config, {"ready": None})
