"""Keeps sessions on the log, so that a conversation outlives the process that served it.

`turns` holds what was read and written, `sessions` the places of each session's turns. A turn counts once the session's
record names it, and only then is its answer sent. So a request that is made again after a crash either finds its turn
or is a new one, and what the agent has seen is never lost.

    store = SessionStore(config, "gateway-a-1")
    found = await store.find("agent-7")
    if found is None:
        session = Session(task, policy, sampling, journal=store.begin("agent-7", task, seed=sampling.seed))
    elif found.ended: ...
    else:
        session = Session(found.record.task, policy, sampling, journal=found.journal)
        session.restore(found.record, found.turns)
    ...
    await session.journal.end()

One process at a time may write a session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from producers.gateway.event_publisher import LINGER_MS, EventPublisher
from producers.gateway.session_reader import ReadSession, SessionReader
from rft.config import Config
from rft.errors import BrokerError
from rft.log.writer import EventWriter
from schemas.events import Task
from schemas.sessions import ENDED, OPEN, GivenReward, Session, Turn, TurnPlace


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the log has it."""

    record: Session
    turns: tuple[Turn, ...]
    """In the order in which they became part of it; none if it has ended."""
    journal: SessionJournal
    """Writes what comes next in it."""

    @property
    def ended(self) -> bool:
        """Whether it takes no more requests."""
        return self.record.state == ENDED


class SessionStore:
    """Is the sessions of one namespace. Coroutines may be called in any event loop."""

    def __init__(self, config: Config, client_id: str) -> None:
        """Connect. Raises BrokerError, TopicError.

        Args:
            config: Names the log.
            client_id: Names this process in the records.
        """
        self._client_id = client_id
        writer = EventWriter(config, client_id, linger_ms=LINGER_MS)
        try:
            writer.prepare("turns", "sessions", "dlq")
            self._reader = SessionReader(config, client_id, writer)
        except BaseException:
            writer.close(timeout_s=1.0)
            raise
        self._publisher = EventPublisher(writer)

    @property
    def error(self) -> BrokerError | None:
        """Why the broker refused an event for good, if it did: nothing can be served any more."""
        return self._publisher.error

    def begin(
        self, session_id: str, task: Task, *, sample: int = 0, seed: int = 0, metadata: str = "{}"
    ) -> SessionJournal:
        """Return the journal of a new session. It is on the log with its first turn or reward, or with ``open``.

        Args:
            session_id: The session's name.
            task: What it is for.
            sample: Which sample of the task's group it is.
            seed: ``Sampling.seed`` of the session.
            metadata: JSON object to keep with it.
        """
        now_ms = int(time.time() * 1000)
        record = Session(session_id, OPEN, task, sample, seed, (), (), now_ms, -1, self._client_id, metadata)
        return SessionJournal(self._publisher, record)

    async def find(self, session_id: str) -> StoredSession | None:
        """Return a session as the log has it now; None if the log has none of this name.

        Raises SessionEndedError if its turns are no longer on the log, BrokerError.
        """
        found: ReadSession | None = await asyncio.wrap_future(self._reader.read(session_id))
        if found is None:
            return None
        journal = SessionJournal(self._publisher, replace(found.record, source=self._client_id))
        return StoredSession(found.record, found.turns, journal)

    async def open_sessions(self) -> list[str]:
        """Return the names of the sessions that the log has now and that have not ended. Raises BrokerError."""
        await asyncio.wrap_future(self._reader.read(""))  # reads to the end
        return self._reader.open_sessions()

    def close(self) -> None:
        """Send what was asked for, and disconnect."""
        self._reader.close()
        self._publisher.close()


class SessionJournal:
    """Is :class:`producers.gateway.journal.Journal` of a session that outlives its process."""

    def __init__(self, publisher: EventPublisher, record: Session) -> None:
        """``record`` is the newest of the session; its revision is -1 if it has none."""
        self._publisher = publisher
        self._record = record

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self._record.session_id

    @property
    def record(self) -> Session:
        """The session's newest record, as far as it was asked to be written."""
        return self._record

    async def append(self, turns: Sequence[Turn]) -> None:
        """Write the turns that answer one request, and then their places, see :class:`Journal`."""
        places = await asyncio.gather(*(self._publisher.publish("turns", turn) for turn in turns))
        self._record = replace(self._record, turns=(*self._record.turns, *places))
        try:
            await self._save()
        except BaseException:
            # The next record must not name them: their answer was not sent.
            self._record = replace(self._record, turns=_without(self._record.turns, places))
            raise

    async def open(self) -> None:
        """Write the session before it has a turn."""
        await self._save()

    async def save_rewards(self, rewards: Iterable[GivenReward]) -> None:
        """Write the newest revision of each reward that was sent to the session."""
        self._record = replace(self._record, rewards=tuple(rewards))
        await self._save()

    async def save_metadata(self, metadata: str) -> None:
        """Write another JSON object to keep with the session."""
        self._record = replace(self._record, metadata=metadata)
        await self._save()

    async def end(self) -> None:
        """Write that the session has ended. Call it when its experience is on the log."""
        self._record = replace(self._record, state=ENDED)
        await self._save()

    async def _save(self) -> None:
        self._record = replace(self._record, revision=self._record.revision + 1)
        await self._publisher.publish("sessions", self._record)


def _without(places: Sequence[TurnPlace], gone: Sequence[TurnPlace]) -> tuple[TurnPlace, ...]:
    left = set(gone)
    return tuple(place for place in places if place not in left)
