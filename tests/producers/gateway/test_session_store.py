"""The session store gives back exactly what was written, to any process that asks later, and names what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brokers import ConfigMaker

from producers.gateway.contract import SessionEndedError
from producers.gateway.session_store import SessionStore
from rft.config import Config
from rft.errors import RequestError
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.sessions import GivenReward, Turn
from tests.producers.roles import Log, task

Talk = Callable[[SessionStore], Coroutine[Any, Any, None]]
TURN = Turn(
    session_id="a",
    number=0,
    conversation=0,
    extends=-1,
    begins=True,
    request="r",
    choice=0,
    choices=1,
    messages="[]",
    tools="[]",
    tool_choice="auto",
    tokens_before=0,
    prompt_tokens=np.array([5, 6], np.int32),
    tokens=np.array([7, 2], np.int32),
    logprobs=np.array([-0.5, -1], np.float32),
    versions=np.array([0, 1], np.int32),
    finish_reason="stop",
    max_tokens=8,
    temperature=1.0,
    top_p=1.0,
    stop=(),
    seed=3,
    generation=0,
    created_at=1,
)


def turn(number: int, session_id: str = "a", **changes: Any) -> Turn:
    return replace(TURN, number=number, session_id=session_id, **changes)


def with_store(config: Config, talk: Talk) -> None:
    """Do something with a store of its own, as a process would."""
    store = SessionStore(config, "gateway-test")
    try:
        asyncio.run(talk(store))
    finally:
        store.close()


@pytest.fixture
def config(any_broker: str, make_config: ConfigMaker) -> Config:
    made = make_config(any_broker)
    ensure_topics(made)
    return made


def test_another_process_finds_the_same_turns_rewards_and_end(config: Config) -> None:
    rewards = (GivenReward(None, 1, 0.5, 2), GivenReward("tests", None, 1.0, 0))

    async def write(store: SessionStore) -> None:
        assert await store.find("a") is None
        journal = store.begin("a", task(0), sample=1, seed=9, metadata='{"x": 1}')
        for number in range(3):
            await journal.append([turn(number)])
        await asyncio.gather(
            *(store.begin(name, task(1)).append([turn(0, name), turn(1, name)]) for name in map(str, range(20)))
        )
        await journal.save_rewards(rewards)

    async def read_and_end(store: SessionStore) -> None:
        found = await store.find("a")
        assert found is not None
        assert found.turns == (turn(0), turn(1), turn(2))
        assert (found.record.task, found.record.sample, found.record.seed) == (task(0), 1, 9)
        assert (found.record.rewards, found.record.metadata, found.ended) == (rewards, '{"x": 1}', False)
        others = await asyncio.gather(*(store.find(str(number)) for number in range(20)))
        assert [one.turns for one in others if one] == [(turn(0, str(n)), turn(1, str(n))) for n in range(20)]
        await found.journal.append([turn(5)])
        again = await store.find("a")
        assert again is not None
        assert [one.number for one in again.turns] == [0, 1, 2, 5], "also what this process wrote itself"
        await found.journal.end()

    async def read_end(store: SessionStore) -> None:
        found = await store.find("a")
        assert found is not None
        assert (found.ended, found.turns) == (True, ())

    with_store(config, write)
    with_store(config, read_and_end)
    with_store(config, read_end)


def test_a_turn_that_no_record_names_does_not_count(config: Config) -> None:
    async def write(store: SessionStore) -> None:
        journal = store.begin("a", task(0))
        await journal.append([turn(0)])
        canceled = asyncio.create_task(journal.append([turn(1)]))
        await asyncio.sleep(0)
        canceled.cancel()
        await asyncio.wait([canceled])
        await journal.append([turn(2)])

    async def read(store: SessionStore) -> None:
        found = await store.find("a")
        assert found is not None
        assert [one.number for one in found.turns] == [0, 2]

    with_store(config, write)
    with EventWriter(config, "killed") as writer:
        writer.send("turns", turn(3))  # its process was killed before it wrote the session's record
    with_store(config, read)


def test_a_turn_that_is_too_large_fails_its_request_only(config: Config) -> None:
    async def write(store: SessionStore) -> None:
        journal = store.begin("a", task(0))
        with pytest.raises(RequestError, match=r"log\.max_message_bytes"):
            await journal.append([turn(0, messages="x" * config.log.max_message_bytes)])
        await journal.append([turn(1)])
        assert store.error is None

    with_store(config, write)


def test_junk_on_sessions_becomes_a_dead_letter_and_lost_turns_are_named(config: Config) -> None:
    async def write(store: SessionStore) -> None:
        await store.begin("a", task(0)).append([turn(0)])
        await store.begin("b", task(0)).append([turn(0, "other")])

    async def read(store: SessionStore) -> None:
        found = await store.find("a")
        assert found is not None
        assert found.turns == (turn(0),)
        with pytest.raises(SessionEndedError, match="no longer on the log"):
            await store.find("b")

    with_store(config, write)
    with EventWriter(config, "stranger") as writer:
        writer.send_bytes("sessions", b"junk", key=b"a")
    with_store(config, read)
    with Log(config, "dlq") as log:
        assert [event.value for event in log.raw("dlq")] == [b"junk"]
