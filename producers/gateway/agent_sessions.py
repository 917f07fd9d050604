"""Keeps the sessions of agents that come by themselves.

A session is opened by its first request or as one of a group, and ends by a call or by idle time. Its rows are on the
log then. With a store, it outlives the process: another one takes it up where the log has it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from producers.gateway.agent_session import EndedSession, OpenedSession, read_ended
from producers.gateway.contract import (
    Answer,
    ChatRequest,
    GroupRequest,
    OverloadedError,
    SessionEndedError,
    SessionReward,
    UnknownSessionError,
)
from producers.gateway.event_publisher import Publisher
from producers.gateway.remote_policy import RemotePolicies
from producers.gateway.session import Session
from producers.gateway.session_ending import SessionEnding
from producers.gateway.session_groups import place_of, session_task, sessions_of
from producers.gateway.session_store import SessionJournal, SessionStore, StoredSession
from rft.config import Config
from rft.errors import DecodeError, RequestError
from rft.workflows.messages import ParseReply
from rft.workflows.task_sampling import sampling_of
from schemas.events import Task

RETRY_AFTER_S = 1.0
ENDED_KEPT = 10_000
"""Ended sessions that are remembered in memory. The store has all that the log still holds."""
ENDED = "the session has ended; open another one, with another name"

log = logging.getLogger("rft")


class AgentSessions:
    """Is :class:`producers.gateway.contract.Sessions` and ``SessionOpening``. Lives in one event loop."""

    def __init__(
        self,
        config: Config,
        policies: RemotePolicies,
        publisher: Publisher,
        source: str,
        find_parser: Callable[[], ParseReply],
        store: SessionStore | None = None,
    ) -> None:
        """Begin without sessions.

        Args:
            config: The configuration.
            policies: Write the turns.
            publisher: Puts experiences and rewards on the log.
            source: Our name in experiences.
            find_parser: Returns what finds calls in the text of a turn.
            store: Keeps the sessions on the log; without one, they end with this process.
        """
        self._config = config
        self._policies = policies
        self._ending = SessionEnding(config, publisher, source, self._ended_session)
        self._find_parser = find_parser
        self._store = store
        self._open: dict[str, OpenedSession] = {}
        self._opening: dict[str, asyncio.Task[OpenedSession | EndedSession | None]] = {}
        self._ended: OrderedDict[str, EndedSession] = OrderedDict()
        self.under_way = 0
        """Requests that are served now."""
        self.answered = 0
        """Requests that were answered."""
        self.stopping = False
        """Whether requests are refused because the process ends; clients try again."""

    @property
    def published(self) -> int:
        """Experiences that were published."""
        return self._ending.published

    @property
    def error(self) -> Exception | None:
        """Why nothing can be published any more."""
        return self._ending.error or (self._store.error if self._store else None)

    @property
    def models(self) -> Sequence[str]:
        """The model's name."""
        return (self._config.trainer.model_key,)

    @property
    def open_sessions(self) -> int:
        """Sessions in memory that have not ended."""
        return len(self._open)

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        """Return the next turns; a session that is new is opened.

        Raises OverloadedError if as many requests are under way, or sessions open, as may be, and what
        :meth:`producers.gateway.session.Session.complete` raises.
        """
        if self.stopping:
            raise OverloadedError("the gateway is stopping", RETRY_AFTER_S)
        most = self._config.gateway.max_requests
        if self.under_way >= most:
            raise OverloadedError(f"{most} requests are under way (gateway.max_requests)", RETRY_AFTER_S)
        self.under_way += 1
        try:
            opened = await self._find(session, self._lone_task(session))
            if opened is None:
                raise UnknownSessionError(
                    f"there is no session {session!r}: open its group by POST /rft/sessions first"
                )
            if isinstance(opened, EndedSession) or opened.ending is not None:
                raise SessionEndedError(ENDED)
            opened.used_at = time.monotonic()
            try:
                return await opened.session.complete(request)
            finally:
                opened.used_at = time.monotonic()
        finally:
            self.under_way -= 1
            self.answered += 1

    async def count(self, session: str, request: ChatRequest) -> int:
        """Return how many tokens the request has when it is rendered as a whole. Raises RequestError."""
        chat = self._policies.chat
        return len(chat.encode(chat.render(request.messages, request.tools, prompting=True)))

    async def reward(self, session: str, reward: SessionReward) -> None:
        """Keep a reward for the session's experience; if that is on the log, publish it as an event of ``rewards``."""
        found = await self._known(session)
        if isinstance(found, OpenedSession) and found.ending is None:
            found.used_at = time.monotonic()
            await found.session.reward(reward)
            return
        ended = found if isinstance(found, EndedSession) else await self._ending.end(found)
        await self._ending.reward(ended, reward)

    async def describe(self, session: str) -> Mapping[str, Any]:
        """Return what is known of a session, as JSON."""
        found = await self._known(session)
        return found.describe() if isinstance(found, EndedSession) else found.session.describe()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens kept."""
        return self._policies.chat.decode(tokens, special=True)

    async def open_group(self, request: GroupRequest) -> Mapping[str, Any]:
        """Open the sessions of a group, those that are not known yet."""
        group = request.group or secrets.token_hex(16)
        names = sessions_of(group, request.samples)
        task = session_task(self._config, place_of(names[0]).group_id, request, int(time.time() * 1000))
        first = await self._find(names[0], None)
        if first is None:
            self._check_room(len(names))
        for name in names:
            found = await self._find(name, task)
            if isinstance(found, OpenedSession) and _asked(found.task) != _asked(task):
                raise RequestError(f"group: {group!r} is open with other samples, another answer or other metadata")
        return {"group_id": task.group_id, "sessions": names}

    async def end(self, session: str, reward: SessionReward | None = None) -> Mapping[str, Any]:
        """End a session and publish its rows."""
        if reward is not None:
            await self.reward(session, reward)
        found = await self._known(session)
        ended = found if isinstance(found, EndedSession) else await self._ending.end(found)
        return ended.describe()

    async def take_up(self) -> None:
        """Take up the sessions that an earlier process has left open, so that they end when nobody asks for them."""
        for name in await self._store.open_sessions() if self._store else ():
            if len(self._open) >= self._config.gateway.max_sessions:
                log.warning("more than %d sessions are open: the others wait for a request", len(self._open))
                return
            try:
                await self._find(name, None)
            except SessionEndedError as error:
                log.warning("session %s: %s", name, error)

    async def end_idle(self) -> None:
        """End the sessions that nobody has used for ``gateway.idle_s``."""
        limit = time.monotonic() - self._config.gateway.idle_s
        idle = [opened for opened in self._open.values() if opened.is_idle(limit)]
        for opened in idle:
            if await self._is_ours(opened):
                await self._ending.end(opened)

    async def close(self) -> None:
        """Answer no more requests. What no store keeps is published."""
        self.stopping = True
        if self._store is None:
            await asyncio.gather(*(self._ending.end(opened) for opened in list(self._open.values())))

    def _lone_task(self, session: str) -> Task | None:
        """Return the task of a session that a request may open."""
        place = place_of(session)
        if place.group is not None:
            return None
        return session_task(self._config, place.group_id, GroupRequest(), int(time.time() * 1000))

    async def _known(self, session: str) -> OpenedSession | EndedSession:
        found = await self._find(session, None)
        if found is None:
            raise UnknownSessionError(f"there is no session {session!r}")
        return found

    async def _find(self, name: str, task: Task | None) -> OpenedSession | EndedSession | None:
        """Return a session from memory or from the log. One that is nowhere is opened for ``task``, if there is one.

        Raises SessionEndedError if its turns are no longer on the log, OverloadedError.
        """
        while (opening := self._opening.get(name)) is not None:
            await asyncio.wait({opening})
        if known := self._ended.get(name) or self._open.get(name):
            return known
        if self._store is None and task is None:
            return None
        opening = asyncio.create_task(self._read_or_begin(name, task))
        self._opening[name] = opening
        opening.add_done_callback(lambda _: self._opening.pop(name))
        return await asyncio.shield(opening)

    async def _read_or_begin(self, name: str, task: Task | None) -> OpenedSession | EndedSession | None:
        stored = await self._store.find(name) if self._store else None
        if stored is not None and stored.ended:
            return self._remember(name, read_ended(name, stored.record.metadata))
        if stored is None and task is None:
            return None
        self._check_room(1)
        opened = self._restored(name, stored) if stored else self._begun(name, task)
        if opened.journal and not stored and opened.place.group is not None:
            await opened.journal.open()
        self._open[name] = opened
        return opened

    def _check_room(self, sessions: int) -> None:
        most = self._config.gateway.max_sessions
        if len(self._open) + sessions > most:
            message = f"{len(self._open)} sessions are open, at most {most} may be (gateway.max_sessions)"
            raise OverloadedError(message, RETRY_AFTER_S)

    def _begun(self, name: str, task: Task | None) -> OpenedSession:
        assert task is not None
        place = place_of(name)
        seed = sampling_of(task, place.sample, 0).seed
        journal = self._store.begin(name, task, sample=place.sample, seed=seed) if self._store else None
        return self._make(name, task, journal, time.time(), seed)

    def _restored(self, name: str, stored: StoredSession) -> OpenedSession:
        record = stored.record
        opened = self._make(name, record.task, stored.journal, record.created_at / 1000, record.seed)
        try:
            opened.session.restore(record, stored.turns)
        except DecodeError as error:
            raise SessionEndedError(f"the session cannot go on: {error}") from error
        return opened

    def _make(
        self, name: str, task: Task, journal: SessionJournal | None, opened_at: float, seed: int
    ) -> OpenedSession:
        place = place_of(name)
        sampling = replace(sampling_of(task, place.sample, 0), seed=seed)
        session = Session(task, self._policies.of(name), sampling, self._find_parser, journal)
        return OpenedSession(name, session, task, place, journal, opened_at, time.monotonic())

    async def _is_ours(self, opened: OpenedSession) -> bool:
        """Return whether we are the one to end a session. Another gateway may have gone on with it meanwhile."""
        if self._store is None or opened.journal is None:
            return True
        stored = await self._store.find(opened.name)
        if stored is None or (not stored.ended and stored.record.revision <= opened.journal.record.revision):
            return True
        self._forget(opened)
        return False

    def _ended_session(self, opened: OpenedSession, ended: EndedSession) -> None:
        self._forget(opened)
        self._remember(opened.name, ended)

    def _remember(self, name: str, ended: EndedSession) -> EndedSession:
        self._ended[name] = ended
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        return ended

    def _forget(self, opened: OpenedSession) -> None:
        self._open.pop(opened.name, None)
        self._policies.forget(opened.name)


def _asked(task: Task) -> tuple[object, ...]:
    """Return what a group was opened with."""
    return task.samples, task.answer, task.metadata
