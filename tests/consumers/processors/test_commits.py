"""Commits go on while the broker is asked about offsets, and commits that do not get through are noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest
from memory_backend import MemorySink, MemorySource, NoQueries, delivered
from processor_worker import experience

from consumers.processors import commit_monitor, missed_events, shell
from consumers.processors.output import Output
from consumers.processors.registry_wait import RegistryWait
from consumers.processors.shell import Shell
from rft.config import Config
from rft.errors import BrokerError
from rft.log.coordinates import EntityPartition
from rft.rewards.scorer import make_scorer
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import encode

Scenario = Callable[[Shell, MemorySource], Coroutine[Any, Any, None]]
BOTH = [EntityPartition("experiences", 0), EntityPartition("experiences", 1)]


class SilentQueries(NoQueries):
    """Answers until ``silent``, and then never again, as a broker does not whose leader has moved."""

    silent = False

    async def begins(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        if type(self).silent:
            await asyncio.Event().wait()
        return await super().begins(partitions)

    async def first_event(self, partition: EntityPartition, offset: int) -> int | None:
        await asyncio.Event().wait()


class GroupQueries(NoQueries):
    """Knows what the group has committed, and takes its time to say it."""

    found: dict[EntityPartition, int] = {}
    delay_s = 0.0

    async def committed(self, partitions: Collection[EntityPartition]) -> dict[EntityPartition, int]:
        await asyncio.sleep(type(self).delay_s)
        return {at: type(self).found[at] for at in partitions if at in type(self).found}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run a scenario with a shell that both partitions are assigned to."""
    monkeypatch.setattr(missed_events, "OffsetQueries", SilentQueries)
    monkeypatch.setattr(commit_monitor, "OffsetQueries", GroupQueries)
    monkeypatch.setattr(shell, "OffsetQueries", NoQueries)
    monkeypatch.setattr(commit_monitor, "STALL_S", 0.0)
    monkeypatch.setattr(SilentQueries, "silent", False)
    monkeypatch.setattr(GroupQueries, "found", {})
    monkeypatch.setattr(GroupQueries, "delay_s", 0.0)

    def run(scenario: Scenario) -> None:
        async def with_shell() -> None:
            config, source, sink = Config(), MemorySource(), MemorySink(acknowledges=True)
            rules = Rules(config.processor, make_scorer(config.processor.rewards), fifo, 2**20)
            shell = Shell(config, Pipeline(rules), source, Output(sink, config), RegistryWait(None))
            await shell.assigned(BOTH)
            await scenario(shell, source)
            await shell.close()

        asyncio.run(asyncio.wait_for(with_shell(), 30))

    return run


async def deliver(shell: Shell, partition: int, offset: int, number: int) -> None:
    """Deliver a group of one experience."""
    event = experience(number, 0, size=1)
    await shell.received("experiences", delivered(offset, event.group_id.encode(), encode(event), partition))
    await asyncio.sleep(0.02)


def test_commits_go_on_while_the_broker_does_not_say_where_the_log_begins(play):
    async def scenario(shell, source):
        await deliver(shell, 0, 0, 0)
        SilentQueries.silent = True
        for offset in range(1, 4):
            shell.check_progress()
            await asyncio.sleep(0.02)
            await deliver(shell, 0, offset, offset)
            await shell.commit()
        assert source.commits[-1] == ("experiences", {0: 4})

    play(scenario)


def test_a_jump_of_offsets_holds_back_its_own_partition_there_and_no_other(play):
    async def scenario(shell, source):
        await deliver(shell, 0, 0, 0)
        await deliver(shell, 1, 0, 1)
        SilentQueries.silent = True
        await deliver(shell, 0, 5, 2)
        await deliver(shell, 1, 1, 3)
        await shell.commit()
        assert source.commits[-1] == ("experiences", {0: 1, 1: 2})

    play(scenario)


def test_nothing_is_committed_of_a_partition_before_its_first_event_is_confirmed(play):
    async def scenario(shell, source):
        await deliver(shell, 0, 3, 0)  # nothing says yet that offsets 0 to 2 are empty
        await deliver(shell, 1, 0, 1)
        await shell.commit()
        assert source.commits == [("experiences", {1: 1})]

    play(scenario)


def test_commits_that_do_not_get_through_are_named_and_end_the_worker(play):
    async def scenario(shell, source):
        await deliver(shell, 0, 0, 0)
        await shell.commit()
        GroupQueries.found = {BOTH[0]: 1}
        source.refuses_commits = True
        await deliver(shell, 0, 1, 1)
        shell.check_progress()
        await asyncio.sleep(0.1)
        with pytest.raises(BrokerError, match=r"experiences, partition 0: offset 1 is committed .* before offset 2 is"):
            shell.raise_failure()

    play(scenario)


def test_commits_wait_for_a_broker_that_is_away(play, monkeypatch):
    monkeypatch.setattr(commit_monitor, "ANSWER_S", 0.05)

    async def scenario(shell, source):
        GroupQueries.delay_s = 0.3
        source.refuses_commits = True
        await deliver(shell, 0, 0, 0)
        shell.check_progress()
        await asyncio.sleep(0.6)
        shell.raise_failure()
        source.refuses_commits = False
        await shell.commit()
        assert source.commits == [("experiences", {0: 1})]

    play(scenario)


def test_an_event_that_later_ones_wait_for_is_named(play, monkeypatch, caplog):
    monkeypatch.setattr(commit_monitor, "NAME_EVERY_S", 0.05)
    caplog.set_level("INFO")

    async def scenario(shell, source):
        half = experience(7, 0, size=2)
        await shell.received("experiences", delivered(0, half.group_id.encode(), encode(half), 0))
        await deliver(shell, 0, 1, 8)
        for _ in range(3):
            shell.check_progress()
            await asyncio.sleep(0.06)
        assert "experiences, partition 0: later events wait to be committed until offset 0 is done" in caplog.text

    play(scenario)
