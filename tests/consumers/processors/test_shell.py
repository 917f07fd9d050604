"""The shell keeps its side of the contract with a stream backend. No broker: the backend is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from memory_backend import MemorySink, MemorySource, NoQueries, delivered
from processor_worker import experience

from consumers.processors import missed_events, shell
from consumers.processors.output import Output
from consumers.processors.registry_wait import RegistryWait
from consumers.processors.shell import Shell
from rft.config import Config
from rft.errors import BrokerError
from rft.log.coordinates import EntityPartition
from rft.log.dead_letters import VALUE_OMITTED
from rft.rewards import make_scorer
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import encode

Scenario = Callable[[Shell, MemorySource, MemorySink], Coroutine[Any, Any, None]]
ONE = EntityPartition("experiences", 0)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run a scenario with a shell that partition 0 is assigned to."""
    monkeypatch.setattr(missed_events, "OffsetQueries", NoQueries)
    monkeypatch.setattr(shell, "SETTLE_S", 0.1)

    def run(scenario: Scenario) -> None:
        async def with_shell() -> None:
            config, source, sink = Config(), MemorySource(), MemorySink()
            rules = Rules(config.processor, make_scorer(config.processor.rewards), fifo, 2**20)
            one = Shell(config, Pipeline(rules), source, Output(sink, config), RegistryWait(None))
            await one.assigned([ONE])
            await scenario(one, source, sink)

        asyncio.run(with_shell())

    return run


async def deliver(one: Shell, first_offset: int, number: int, size: int = 1) -> None:
    """Deliver a whole group."""
    for sample in range(size):
        event = experience(number, sample, size=size)
        await one.received("experiences", delivered(first_offset + sample, event.group_id.encode(), encode(event)))
    await asyncio.sleep(0.01)


def test_only_offsets_before_the_first_unacknowledged_event_are_committed(play):
    async def scenario(one, source, sink):
        await deliver(one, 0, 0)
        await deliver(one, 1, 1)
        sink.sent[1].acknowledged.set_result(None)
        await one.settle()
        await one.commit()
        assert source.commits == [("experiences", {0: 0})]
        sink.acknowledge()
        await one.settle()
        await one.commit()
        assert source.commits[1:] == [("experiences", {0: 2})]

    play(scenario)


def test_a_refused_commit_is_tried_again(play):
    async def scenario(one, source, sink):
        sink.acknowledges = source.refuses_commits = True
        await deliver(one, 0, 0)
        await one.commit()
        source.refuses_commits = False
        await one.commit()
        await one.commit()
        assert source.commits == [("experiences", {0: 1})]

    play(scenario)


def test_the_next_event_waits_while_too_many_writes_are_unacknowledged(play, monkeypatch):
    monkeypatch.setattr(shell, "MAX_WRITES", 1)

    async def scenario(one, source, sink):
        await deliver(one, 0, 0)
        waiting = asyncio.create_task(deliver(one, 1, 1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        sink.acknowledge()
        await asyncio.wait_for(waiting, 1)

    play(scenario)


def test_an_event_of_a_revoked_partition_is_ignored(play):
    async def scenario(one, source, sink):
        await one.revoked()
        await deliver(one, 0, 0)
        await one.assigned([EntityPartition("experiences", 1)])
        await deliver(one, 0, 0)
        assert sink.sent == []
        assert one.unresolved == 0

    play(scenario)


def test_a_write_that_fails_ends_the_worker_and_its_event_is_not_committed(play):
    async def scenario(one, source, sink):
        await deliver(one, 0, 0)
        sink.sent[0].acknowledged.set_exception(OSError("disk full"))
        await one.settle()
        with pytest.raises(BrokerError, match="could not be written: disk full"):
            one.raise_failure()
        await one.commit()
        assert source.commits == [("experiences", {0: 0})]

    play(scenario)


def test_a_dead_letter_that_its_headers_make_too_large_is_written_without_its_value(play):
    async def scenario(one, source, sink):
        sink.max_bytes, sink.acknowledges = 100, True
        await one.received("experiences", delivered(0, b"k", b"x" * 101))
        await one.settle()
        [letter] = sink.sent
        assert (letter.entity, letter.key, letter.value) == ("dlq", b"k", None)
        assert dict(letter.headers)[VALUE_OMITTED] == b"101"
        await one.commit()
        assert source.commits == [("experiences", {0: 1})]

    play(scenario)


def test_closing_commits_what_is_acknowledged_and_leaves_open_groups_unpublished(play):
    async def scenario(one, source, sink):
        sink.acknowledges = True
        await deliver(one, 0, 0)
        event = experience(1, 0, size=4)
        await one.received("experiences", delivered(1, event.group_id.encode(), encode(event)))
        await one.close()
        assert source.paused
        assert source.commits == [("experiences", {0: 1})]
        assert len(sink.sent) == 1

    play(scenario)
