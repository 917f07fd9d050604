"""The shell keeps its side of the contract with a stream backend. No broker: the backend is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest
from memory_backend import MemorySink, MemorySource, NoQueries, delivered
from processor_worker import experience

from consumers.processors import missed_events, shell
from consumers.processors.divided_groups import decode_offsets, encode_offsets
from consumers.processors.output import Output
from consumers.processors.registry_wait import RegistryWait
from consumers.processors.shell import Shell
from rft.config import Config
from rft.errors import BrokerError
from rft.log.coordinates import EntityPartition
from rft.log.dead_letters import VALUE_OMITTED
from rft.rewards.scorer import make_scorer
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
    monkeypatch.setattr(shell, "OffsetQueries", NoQueries)
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


class BeganBefore(NoQueries):
    """Says that a former owner has committed offset 1 and finished offset 2."""

    async def committed(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        return {ONE: 1}

    async def committed_metadata(
        self, partitions: Collection[EntityPartition]
    ) -> dict[EntityPartition, tuple[int, str]]:
        await asyncio.sleep(0.05)
        return {ONE: (1, encode_offsets(1, [(2,)]))}


class SilentBroker(NoQueries):
    async def committed_metadata(
        self, partitions: Collection[EntityPartition]
    ) -> dict[EntityPartition, tuple[int, str]]:
        raise OSError("no answer")


def test_an_event_that_a_former_owner_has_finished_is_not_taken_for_a_new_group(play, monkeypatch):
    async def scenario(one, source, sink):
        sink.acknowledges = True
        monkeypatch.setattr(shell, "OffsetQueries", BeganBefore)
        monkeypatch.setattr(one._missed, "_queries", BeganBefore(None))
        await one.assigned([ONE])
        for offset, (number, sample) in enumerate([(1, 0), (0, 1), (1, 1)], start=1):
            event = experience(number, sample, size=2)
            await one.received("experiences", delivered(offset, event.group_id.encode(), encode(event)))
        await one.settle()
        await asyncio.sleep(0.01)
        await one.commit()
        assert [sent.key for sent in sink.sent] == [b"train-00000001"] * 2
        assert source.commits == [("experiences", {0: 4})]

    play(scenario)


def test_what_a_former_owner_has_finished_is_committed_again_until_it_lies_behind(play, monkeypatch):
    async def scenario(one, source, sink):
        monkeypatch.setattr(shell, "OffsetQueries", BeganBefore)
        monkeypatch.setattr(one._missed, "_queries", BeganBefore(None))
        await one.assigned([ONE])
        event = experience(1, 0, size=2)
        await one.received("experiences", delivered(1, event.group_id.encode(), encode(event)))
        await asyncio.sleep(0.01)
        await one.commit()
        assert [decode_offsets(1, metadata[0]) for metadata in source.metadata] == [{2}]

    play(scenario)


def test_a_processor_that_cannot_learn_what_is_finished_ends(play, monkeypatch):
    async def scenario(one, source, sink):
        monkeypatch.setattr(shell, "OffsetQueries", SilentBroker)
        await one.assigned([ONE])
        await asyncio.sleep(0.01)
        with pytest.raises(BrokerError, match="no answer"):
            one.raise_failure()

    play(scenario)


def test_no_deadline_passes_while_the_broker_is_away(play, monkeypatch):
    clock = [1_000_000]
    monkeypatch.setattr(shell, "_now_ms", lambda: clock[0])
    deadline_ms = int(Config().processor.group_deadline_s * 1000)

    async def scenario(one, source, sink):
        event = experience(0, 0, size=2)
        await one.received("experiences", delivered(0, event.group_id.encode(), encode(event)))
        one.broker_went_away()
        clock[0] += 2 * deadline_ms
        one.tick()
        one.broker_came_back()
        one.tick()
        clock[0] += deadline_ms - 1
        one.tick()
        await asyncio.sleep(0.01)
        assert not sink.sent
        clock[0] += 1
        one.tick()
        await asyncio.sleep(0.01)
        assert len(sink.sent) == 1

    play(scenario)
