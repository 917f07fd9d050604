"""Events that retention deletes before explorers or the conductor read them stop these, with the missing range."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from deleting import delete_before, skipping

from producers.conductor import run
from producers.explorer.feed import TaskFeed
from rft.config import Config
from rft.errors import MissingRangeError
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import TrainingStep, WeightVersion
from tests.producers.roles import Log, issue, task

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def make(kafka_broker, make_config):
    def make(**sections):
        config = make_config(kafka_broker, log={"partitions": 1}, **sections)
        ensure_topics(config)
        return config

    return make


def explore(config: Config, enough: Callable[[list[int]], bool]) -> tuple[list[int], Exception | None]:
    """Return the task numbers that an explorer gets until they are enough or it fails. It finishes all of them."""
    numbers: list[int] = []

    def deliver(deliveries) -> None:
        for delivery in deliveries:
            numbers.append(delivery.task.number)
            for _ in range(delivery.task.samples):
                feed.published(delivery.partition, delivery.offset)

    feed = TaskFeed(config, "explorer-test", deliver=deliver, saturated=lambda: False, reject=lambda *_: None)
    feed.start()
    deadline = time.monotonic() + 80
    while not enough(numbers) and feed.error is None:
        assert time.monotonic() < deadline, numbers
        time.sleep(0.05)
    feed.close(10)
    return numbers, feed.error


def test_tasks_deleted_before_anyone_finished_them_stop_the_explorer_unless_it_may_skip(make):
    config = make()
    with EventWriter(config, "test") as writer:
        issue(writer, [task(number) for number in range(3)])
        assert explore(config, lambda numbers: len(numbers) == 3) == ([0, 1, 2], None)
        issue(writer, [task(number) for number in range(3, 10)])
    delete_before(config, "tasks", 7)
    numbers, error = explore(config, lambda numbers: False)
    assert numbers == []
    assert isinstance(error, MissingRangeError)
    assert (error.entity, error.start, error.end) == ("tasks", 3, 7)
    assert "no explorer had finished them" in str(error)
    assert explore(skipping(config), lambda numbers: len(numbers) == 3) == ([7, 8, 9], None)


def test_the_first_explorers_on_an_old_log_begin_where_it_begins(make):
    config = make()
    with EventWriter(config, "test") as writer:
        issue(writer, [task(number) for number in range(5)])
    delete_before(config, "tasks", 2)
    assert explore(config, lambda numbers: len(numbers) == 3) == ([2, 3, 4], None)


def conduct(config: Config) -> MissingRangeError:
    with pytest.raises(MissingRangeError) as caught:
        run(config, threading.Event())
    return caught.value


def conducted(make, evaluations: int) -> Config:
    return make(
        tasks={"source": "reasoning_gym:spell_backward"},
        trainer={"groups_per_step": 2},
        eval={"tasks": evaluations},
    )


def weights(version: int) -> WeightVersion:
    return WeightVersion("policy", version, version, "checkpoint", "w", "0", 1, False, 0)


def test_a_conductor_that_cannot_know_what_is_retired_stops(make):
    config = conducted(make, 0)
    with EventWriter(config, "test") as writer:
        writer.send("weights", weights(0))
        for step in range(1, 4):
            entry = TrainingStep("policy", "step", step, step - 1, step, (), (), (step,), "", {}, 0)
            writer.send("steps", entry)
    delete_before(config, "steps", 2)
    error = conduct(config)
    assert (error.entity, error.start, error.end) == ("steps", 0, 2)
    assert "which tasks are retired" in str(error)


def test_a_conductor_does_not_wait_forever_for_results_that_were_deleted(make):
    config = conducted(make, 3)
    stop = threading.Event()
    first = threading.Thread(target=run, args=(config, stop))
    with EventWriter(config, "test") as writer, Log(config, "tasks") as log:
        writer.send("weights", weights(0))
        writer.flush()
        first.start()
        issued = log.wait("tasks", lambda tasks: len(tasks) == 3)
        stop.set()
        first.join(20)
        assert {task.split for task in issued} == {"eval"}
        for _ in range(3):
            writer.send_bytes("ready", b"a result", key=b"eval-00000000-00000000")
    delete_before(config, "ready", 2)
    error = conduct(config)
    assert (error.entity, error.start, error.end) == ("ready", 0, 2)
    assert "eval.tasks = 0" in str(error)
