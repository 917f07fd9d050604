"""A pipeline on Apache Kafka survives ``kill -9`` of its roles and malformed events."""

import random

import pytest
from accounts import discrepancies
from kafka import KafkaProducer
from pipeline import Pipeline, read_log, settings
from poison import garbage

from rft.log.reader import EventReader
from rft.log.topics import topic_name

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(300)]


class Steps:
    """Reads a run's ``steps`` topic to see how far it is."""

    def __init__(self, run: Pipeline) -> None:
        self.run = run
        self.reader: EventReader | None = None
        self.latest = 0

    def reached(self, number: int) -> bool:
        if self.reader is None:
            if not self.run.role("trainer"):
                return False
            self.reader = EventReader(self.run.config, "e2e-steps", ["steps"])
        for event in self.reader.poll(0.1):
            self.latest = max(self.latest, event.record().step)
        return self.latest >= number

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()


@pytest.fixture
def follow():
    followers = []

    def make(run: Pipeline) -> Steps:
        followers.append(Steps(run))
        return followers[-1]

    yield make
    for follower in followers:
        follower.close()


def test_a_run_survives_kill_9_of_each_role_in_turn(pipeline, follow, tmp_path, tiny_model, kafka_broker):
    """No task is lost and nothing is trained twice in the surviving weights."""
    run = pipeline(
        settings(
            tmp_path, tiny_model, kafka_broker,
            trainer={"steps": 120, "groups_per_step": 4, "learning_rate": 1e-3, "checkpoint_interval": 7},
            launcher={"explorers": 2},
        )
    )  # fmt: skip
    progress = follow(run)
    for role, step in (("explorer", 10), ("processor", 30), ("trainer", 50), ("conductor", 70)):
        run.wait_until(lambda step=step: progress.reached(step), 120, f"step {step}")
        pid = run.kill(role)
        run.wait_until(
            lambda role=role, pid=pid: pid not in [p.pid for p in run.role(role)] and bool(run.role(role)),
            30,
            f"restart of the {role}",
        )
    assert run.wait(200) == 0, run.tail()
    assert discrepancies(read_log(run.config), steps=120) == []
    assert run.report["finished"] is True


def test_malformed_events_become_dead_letters_and_disturb_nothing_else(
    pipeline, follow, tmp_path, tiny_model, kafka_broker
):
    run = pipeline(
        settings(
            tmp_path, tiny_model, kafka_broker,
            trainer={"steps": 60, "groups_per_step": 4, "learning_rate": 1e-3},
        )
    )  # fmt: skip
    progress = follow(run)
    run.wait_until(lambda: progress.reached(5), 120, "step 5")
    sent: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    producer = KafkaProducer(bootstrap_servers=kafka_broker, max_request_size=12_000_000)
    topic = topic_name(run.config, "experiences")
    futures = [
        (pair, producer.send(topic, key=pair[0], value=pair[1])) for pair in garbage(random.Random(7), 1000, huge=10)
    ]
    for pair, future in futures:
        sent_to = future.get(60)
        sent[sent_to.partition, sent_to.offset] = pair
    producer.close()
    assert run.wait(200) == 0, run.tail()

    log = read_log(run.config)
    dead_letters = {}
    for event in log.dead_letters:
        headers = dict(event.headers)
        position = int(headers["rft.error.partition"]), int(headers["rft.error.offset"])
        assert position not in dead_letters, "a dead letter came twice"
        dead_letters[position] = (event, headers)
    assert set(dead_letters) == set(sent)
    for position, (key, value) in sent.items():
        event, headers = dead_letters[position]
        assert (event.key, event.value) == (key, value)
        assert headers["rft.error.topic"].decode() == topic
        assert headers["rft.error.stage"]
        assert headers["rft.error.class"]
        assert headers["rft.error.message"]
    assert discrepancies(log, steps=60) == []
    assert run.report["experiences"]["dead_lettered"] == 1000
    assert run.report["experiences"]["duplicates"] == 0
    assert "restart" not in run.output.read_text()
