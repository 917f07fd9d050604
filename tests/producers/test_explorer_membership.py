"""An explorer that comes, goes or restarts disturbs the others as little as its membership allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from brokers import ConfigMaker
from kafka import TopicPartition

from producers.explorer.backlog import Delivery
from producers.explorer.feed import TaskFeed
from producers.explorer.membership import instance_id
from rft.config import Config
from rft.config_sources import resolve
from rft.errors import BrokerError, ConfigError, FencedError
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from tests.producers.roles import issue, task

PARTITIONS = 6
WAIT_S = 60.0


class Explorer(TaskFeed):
    """A feed whose tasks are done at once. It records what the group does to it."""

    def __init__(self, config: Config, name: str, *, works: bool = True) -> None:
        self.assigned: list[set[int]] = []
        self.revoked: list[set[int]] = []
        self.tasks: set[str] = set()
        self._works = works
        super().__init__(config, name, deliver=self._roll_out, saturated=lambda: False, reject=lambda *_: None)

    def _roll_out(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.tasks.add(delivery.task.group_id)
            for _ in range(delivery.task.samples if self._works else 0):
                self.published(delivery.partition, delivery.offset)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.assigned.append({p.partition for p in assigned})
        await super().on_partitions_assigned(assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.revoked.append({p.partition for p in revoked})
        await super().on_partitions_revoked(revoked)

    @property
    def partitions(self) -> set[int]:
        return {p.partition for p in self._consumer.assignment()}

    @property
    def generation(self) -> int:
        """Number of the group's last rebalance."""
        return int(self._consumer.group_metadata().generation_id)


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def config(kafka_broker: str, make_config: ConfigMaker) -> Callable[..., Config]:
    def make(session_s: int = 6, **rollout: object) -> Config:
        log = {"partitions": PARTITIONS, "session_timeout_ms": 1000 * session_s}
        made = make_config(kafka_broker, rollout=rollout, log=log)
        ensure_topics(made)
        return made

    return make


@contextmanager
def exploring(config: Config, monkeypatch: pytest.MonkeyPatch, name: str, **options: bool) -> Iterator[Explorer]:
    monkeypatch.setenv("RFT_ROLE_NAME", name)
    explorer = Explorer(config, name, **options)
    explorer.start()
    try:
        yield explorer
    finally:
        explorer.close(10)


def share(*explorers: Explorer) -> bool:
    """Return whether the explorers have all partitions between them, each some, none twice."""
    owned = [explorer.partitions for explorer in explorers]
    return all(owned) and sorted(p for some in owned for p in some) == list(range(PARTITIONS))


@pytest.mark.kafka
@pytest.mark.parametrize("static", [True, False])
def test_a_restart_of_a_static_member_moves_no_partition(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, static: bool
) -> None:
    """A member that is not static is the control: its restart rebalances the group."""
    made = config(session_s=24, static_membership=static)
    with ExitStack() as stack, EventWriter(made, "test") as writer:
        other = stack.enter_context(exploring(made, monkeypatch, "other"))
        with exploring(made, monkeypatch, "mine") as mine:
            until(lambda: share(mine, other), "both to share the partitions")
            before = (other.generation, other.partitions, list(other.revoked), mine.partitions)
        again = stack.enter_context(exploring(made, monkeypatch, "mine"))
        until(lambda: share(again, other), "the restarted one to have its partitions")
        tasks = {one.group_id for one in map(task, range(40))}
        issue(writer, map(task, range(40)))
        until(lambda: again.tasks | other.tasks == tasks, "all tasks")
        after = (other.generation, other.partitions, list(other.revoked), again.partitions)
    assert (after == before) is static
    assert not again.tasks & other.tasks


@pytest.mark.kafka
@pytest.mark.parametrize("assignment", ["cooperative", "eager"])
def test_an_explorer_that_joins_takes_only_the_partitions_that_move(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, assignment: str
) -> None:
    """An eager group is the control: it takes all partitions from all."""
    made = config(assignment=assignment)
    with exploring(made, monkeypatch, "first") as first:
        until(lambda: len(first.partitions) == PARTITIONS, "the first to have all partitions")
        with exploring(made, monkeypatch, "second") as second:
            until(lambda: share(first, second), "both to share the partitions")
            taken = set().union(*first.revoked)
            kept, moved = first.partitions, second.partitions
    assert taken == (moved if assignment == "cooperative" else kept | moved)


@pytest.mark.parametrize("static", [False, pytest.param(True, marks=pytest.mark.kafka)])
def test_no_task_is_lost_while_explorers_come_and_go(
    request: pytest.FixtureRequest, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, static: bool
) -> None:
    """The embedded broker has no static members, so those are tested on Apache Kafka."""
    servers = request.getfixturevalue("kafka_broker" if static else "embedded_broker")
    made = make_config(servers, rollout={"static_membership": static}, log={"partitions": PARTITIONS})
    ensure_topics(made)
    tasks = [task(number) for number in range(90)]
    with EventWriter(made, "test") as writer, exploring(made, monkeypatch, "first") as first:
        issue(writer, tasks[:30])
        until(lambda: len(first.tasks) == 30, "the first tasks")
        with exploring(made, monkeypatch, "second") as second:
            until(lambda: share(first, second), "both to share the partitions")
            issue(writer, tasks[30:60])
            until(lambda: len(first.tasks | second.tasks) == 60, "the tasks of both")
        issue(writer, tasks[60:])
        until(lambda: len(first.tasks | second.tasks) == 90, "all tasks")
    assert first.tasks | second.tasks == {one.group_id for one in tasks}
    assert second.tasks


@pytest.mark.kafka
@pytest.mark.parametrize("idle", [True, False])
def test_of_two_processes_with_one_id_the_older_ends_with_a_clear_error(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    made = config(static_membership=True)
    with EventWriter(made, "test") as writer, exploring(made, monkeypatch, "mine", works=idle) as older:
        issue(writer, map(task, range(12)))
        until(lambda: len(older.tasks) == 12, "the tasks")
        if idle:
            until(lambda: older._ledger.committable() == {}, "the commits")
        with exploring(made, monkeypatch, "mine") as newer:
            until(lambda: len(newer.partitions) == PARTITIONS, "the newer to have the partitions")
            if not idle:
                older._roll_out([Delivery(p, o, task(0)) for p, o in _unpublished(older)])
            until(lambda: older.error is not None, "the older to end")
            assert newer.error is None
    assert isinstance(older.error, FencedError)
    assert f"another process has taken over the id '{instance_id('mine')}'" in str(older.error)
    assert "RFT_ROLE_NAME" in str(older.error)


def _unpublished(explorer: Explorer) -> list[tuple[int, int]]:
    return [(p, o) for p, here in explorer._ledger._partitions.items() for o in here.unpublished]


@pytest.mark.kafka
def test_explorers_that_assign_in_another_way_are_told_so(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(assignment="eager")
    rollout = made.rollout.model_copy(update={"assignment": "cooperative"})
    with exploring(made, monkeypatch, "first") as first:
        until(lambda: bool(first.partitions), "the first to have partitions")
        with exploring(made.model_copy(update={"rollout": rollout}), monkeypatch, "second") as second:
            until(lambda: second.error is not None, "the second to end")
        assert first.error is None
    assert isinstance(second.error, BrokerError)
    assert "Give all explorers the same rollout.assignment" in str(second.error)


def test_static_members_on_the_embedded_broker_are_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"embedded broker knows no static members\. Set broker\.kind"):
        resolve([("run.toml", {"rollout": {"static_membership": True}})])
    assert resolve([("run.toml", {"rollout": {"static_membership": True}, "broker": {"kind": "kafka"}})])


def test_the_id_is_one_that_kafka_takes() -> None:
    assert instance_id("explorer-3").startswith("explorer-3-")
    assert instance_id("my explorer/ä").startswith("my-explorer---")
    assert len(instance_id("x" * 300)) == 249
    assert instance_id(None).startswith("explorer-")
