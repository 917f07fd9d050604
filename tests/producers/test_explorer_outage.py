"""An explorer whose broker is away goes on in its event loop, also when it may publish no more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker_outages import OwnNode

from producers.explorer.shell import Explorer
from rft.config import Config
from rft.log import outages
from rft.log.coordinates import EntityPartition
from rft.log.offset_queries import committed_offsets, end_offsets
from rft.log.topics import consumer_group
from rft.log.writer import EventWriter
from rft.policy import open_policy
from schemas.events import Experience
from tests.producers.roles import Log, announce, issue, task

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

LIMIT_BYTES = 8_000
"""Of what waits to be acknowledged: about ten experiences."""
OUTAGE_S = 8.0
DEADLINE_S = 4.0
ID = "explorer-outage"


class Loop:
    """Runs an explorer in an event loop on a thread of its own, and measures how long the loop stands still."""

    def __init__(self, config: Config) -> None:
        self.writer = EventWriter(config, ID, max_in_flight_bytes=LIMIT_BYTES)
        self.writer.prepare("experiences", "members", "dlq")
        self.error: BaseException | None = None
        self._longest_s = 0.0
        self._beat_at = time.monotonic()
        self._config = config
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._explore()))
        self._thread.start()

    @property
    def longest_s(self) -> float:
        """Longest time that the loop stood still, until now."""
        return max(self._longest_s, time.monotonic() - self._beat_at)

    def forget(self) -> None:
        self._longest_s = 0.0

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self.writer.close(1.0)

    async def _explore(self) -> None:
        policy = open_policy(self._config)
        explorer = Explorer(self._config, ID, policy, self.writer)
        explorer.start()
        try:
            while not self._stop.is_set():
                explorer.tick()
                await asyncio.sleep(0.05)
                self._longest_s, self._beat_at = self.longest_s, time.monotonic()
        except BaseException as error:
            self.error = error
        finally:
            await explorer.close()
            policy.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnNode]:
    node = OwnNode(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process waits for its broker as a role does."""
    monkeypatch.setattr(outages, "_policy", outages._Policy())
    outages.wait_for_broker(0, threading.Event())


@pytest.mark.usefixtures("as_role")
def test_deadlines_and_heartbeats_go_on_while_the_broker_is_away_and_nothing_is_lost(
    node: OwnNode, role_config: Callable[..., Config], model: Path
) -> None:
    """Rollouts end while more is unacknowledged than the writer may hold: finished ones, and some at their deadline."""
    rollout = {"workflow": "moody_workflows:moody", "deadline_s": DEADLINE_S, "retries": 0, "max_in_flight": 64}
    config = role_config(node.servers, rollout=rollout)
    with EventWriter(config, "test") as writer, Log(config, "experiences", "members") as log:
        announce(config, writer, model, 0)
        loop = Loop(config)
        try:
            log.wait("members", lambda found: any(one.version == 0 for one in found))
            hanging = issue(writer, [task(number, mood="hang") for number in range(10)])
            slow = issue(writer, [task(number, mood="late") for number in range(10, 30)])
            log.wait("members", lambda found: found[-1].stats["running"] == len(hanging | slow))
            began_ms = time.time() * 1000
            loop.forget()
            with node.away():
                time.sleep(OUTAGE_S)
                assert loop.writer.full, "the limit was reached"
                assert loop.longest_s < 2, "the event loop stood still"
                assert loop.error is None
                ended_ms = time.time() * 1000
            later = issue(writer, [task(number) for number in range(30, 40)])
            expected = hanging | slow | later
            found = log.wait("experiences", lambda events: {one.experience_id for one in events} >= expected)
            log.wait("members", lambda members: members[-1].heartbeat_at > ended_ms)
            wait_until_committed(config)
        finally:
            loop.end()
    assert loop.error is None
    assert {one.experience_id for one in found} == expected
    assert len(found) == len(expected), "no task was rolled out again"
    by_id: dict[str, Experience] = {one.experience_id: one for one in found}
    assert all(began_ms < by_id[name].created_at < ended_ms for name in hanging | slow), "all ended in the outage"
    assert {name for name, one in by_id.items() if one.error} == hanging
    assert all("ran past its deadline" in str(by_id[name].error) for name in hanging)


def wait_until_committed(config: Config) -> None:
    """Wait until all tasks count as finished."""
    partitions = [EntityPartition("tasks", number) for number in range(config.log.partitions)]
    ends = end_offsets(config, "test", partitions)
    group, deadline = consumer_group(config, "explorers"), time.monotonic() + 30
    while any(committed_offsets(config, "test", group, partitions).get(at, 0) < end for at, end in ends.items()):
        assert time.monotonic() < deadline, "the tasks are not committed"
        time.sleep(0.2)
