"""Keeps the sessions of agents that come by themselves: opened by a first request or as a group, ended by a call or by
idle time. An ended session's rows are on the log."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from producers.gateway.session_experiences import RewardNames, Stamp, experiences_of
from producers.gateway.session_groups import SessionPlace, place_of, session_task, sessions_of
from rft.config import Config
from rft.errors import RequestError, RolloutError
from rft.workflows.messages import ParseReply
from rft.workflows.rollout import Outcome
from rft.workflows.seeded_policy import SeededPolicy
from rft.workflows.task_sampling import sampling_of
from schemas.events import Experience, Task

RETRY_AFTER_S = 1.0
ENDED_KEPT = 100_000
"""Ended sessions that are remembered, for rewards that come later and for agents that go on too long."""

log = logging.getLogger("rft")


@dataclass(slots=True)
class _Open:
    session: Session
    task: Task
    place: SessionPlace
    opened_at: float
    """Unix time in s."""
    used_at: float
    """When it was last asked for something, in seconds of a clock that never runs backwards."""
    ending: asyncio.Task[_Ended] | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    place: SessionPlace
    turns: int
    experiences: tuple[str, ...] = field(default=())
    """Ids of what was published."""

    def describe(self) -> dict[str, Any]:
        return {
            "state": "ended",
            "turns": self.turns,
            "group_id": self.place.group_id,
            "experiences": list(self.experiences),
        }


class AgentSessions:
    """Is :class:`producers.gateway.contract.Sessions` and ``SessionOpening``. Lives in one event loop."""

    def __init__(
        self,
        config: Config,
        policies: RemotePolicies,
        publisher: Publisher,
        source: str,
        find_parser: Callable[[], ParseReply],
    ) -> None:
        """Begin without sessions.

        Args:
            config: The configuration.
            policies: Write the turns.
            publisher: Puts experiences and rewards on the log.
            source: Our name in experiences.
            find_parser: Returns what finds calls in the text of a turn.
        """
        self._config = config
        self._policies = policies
        self._publisher = publisher
        self._source = source
        self._find_parser = find_parser
        self._names = RewardNames(config)
        self._open: dict[str, _Open] = {}
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._groups: dict[str, tuple[GroupRequest, Task]] = {}
        """Groups with open sessions, by name."""
        self.under_way = 0
        """Requests that are served now."""
        self.answered = 0
        """Requests that were answered."""
        self.published = 0
        """Experiences that were published."""
        self.stopping = False
        """Whether requests are refused because the process ends; clients try again."""
        self.error: Exception | None = None
        """Why nothing can be published any more."""

    @property
    def models(self) -> Sequence[str]:
        """The model's name."""
        return (self._config.trainer.model_key,)

    @property
    def open_sessions(self) -> int:
        """Sessions that have not ended."""
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
        opened = self._find(session) or self._open_alone(session)
        if opened.ending is not None:
            raise SessionEndedError(ENDED)
        self.under_way += 1
        opened.used_at = time.monotonic()
        try:
            return await opened.session.complete(request)
        finally:
            self.under_way -= 1
            self.answered += 1
            opened.used_at = time.monotonic()

    async def count(self, session: str, request: ChatRequest) -> int:
        """Return how many tokens the request has when it is rendered as a whole. Raises RequestError."""
        chat = self._policies.chat
        return len(chat.encode(chat.render(request.messages, request.tools, prompting=True)))

    async def reward(self, session: str, reward: SessionReward) -> None:
        """Keep a reward for the session's experience; if that is on the log, publish it as an event of ``rewards``."""
        opened = self._open.get(session)
        if opened is not None and opened.ending is None:
            await opened.session.reward(reward)
            opened.used_at = time.monotonic()
            return
        ended = self._ended.get(session) if opened is None else await self._end(session, opened)
        if ended is None:
            raise UnknownSessionError(f"there is no session {session!r}")
        if not ended.experiences:
            raise SessionEndedError("the session ended without a turn, so there is nothing to reward")
        events = self._names.events(ended.place, reward, int(time.time() * 1000), ended.turns)
        await asyncio.gather(*(self._publisher.publish("rewards", event) for event in events))

    async def describe(self, session: str) -> Mapping[str, Any]:
        """Return what is known of a session, as JSON."""
        if ended := self._ended.get(session):
            return ended.describe()
        if opened := self._open.get(session):
            return opened.session.describe()
        raise UnknownSessionError(f"there is no session {session!r}")

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens kept."""
        return self._policies.chat.decode(tokens, special=True)

    async def open_group(self, request: GroupRequest) -> Mapping[str, Any]:
        """Open the sessions of a group, or return those that are open."""
        group = request.group or secrets.token_hex(16)
        names = sessions_of(group, request.samples)
        place = place_of(names[0])
        known = self._groups.get(group)
        if known is None:
            if not any(name in self._ended for name in names):
                self._check_room(len(names))
                task = session_task(self._config, place.group_id, request, int(time.time() * 1000))
                self._groups[group] = request, task
                for name in names:
                    self._add(name, task)
        elif known[0] != request:
            raise RequestError(f"group: {group!r} is open with other samples, another answer or other metadata")
        return {"group_id": place.group_id, "sessions": names}

    async def end(self, session: str, reward: SessionReward | None = None) -> Mapping[str, Any]:
        """End a session and publish its rows."""
        if reward is not None:
            await self.reward(session, reward)
        opened = self._open.get(session)
        ended = self._ended.get(session) if opened is None else await self._end(session, opened)
        if ended is None:
            raise UnknownSessionError(f"there is no session {session!r}")
        return ended.describe()

    async def end_idle(self) -> None:
        """End the sessions that nobody has used for ``gateway.idle_s``."""
        limit = time.monotonic() - self._config.gateway.idle_s
        idle = [
            (name, opened)
            for name, opened in self._open.items()
            if opened.used_at < limit and not opened.session.under_way and opened.ending is None
        ]
        await asyncio.gather(*(self._end(name, opened) for name, opened in idle))

    async def end_all(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(self._end(name, opened) for name, opened in list(self._open.items())))

    def _find(self, session: str) -> _Open | None:
        if session in self._ended:
            raise SessionEndedError(ENDED)
        return self._open.get(session)

    def _open_alone(self, session: str) -> _Open:
        place = place_of(session)
        if place.group is not None:
            raise UnknownSessionError(f"there is no session {session!r}: open its group by POST /rft/sessions first")
        self._check_room(1)
        return self._add(session, session_task(self._config, place.group_id, GroupRequest(), int(time.time() * 1000)))

    def _check_room(self, sessions: int) -> None:
        most = self._config.gateway.max_sessions
        if len(self._open) + sessions > most:
            message = f"{len(self._open)} sessions are open, at most {most} may be (gateway.max_sessions)"
            raise OverloadedError(message, RETRY_AFTER_S)

    def _add(self, name: str, task: Task) -> _Open:
        place = place_of(name)
        sampling = sampling_of(task, place.sample, 0)
        policy = SeededPolicy(self._policies.of(name), sampling.seed)
        session = Session(task, policy, sampling, self._find_parser)
        opened = self._open[name] = _Open(session, task, place, time.time(), time.monotonic())
        return opened

    async def _end(self, name: str, opened: _Open) -> _Ended:
        """End a session once, however many ask for it and whether or not they stay."""
        if opened.ending is None:
            opened.ending = asyncio.create_task(self._publish(name, opened))
        return await asyncio.shield(opened.ending)

    async def _publish(self, name: str, opened: _Open) -> _Ended:
        session, task, place = opened.session, opened.task, opened.place
        await session.end()
        now = time.time()
        stamp = Stamp(self._source, self.models[0], int(now * 1000), int((now - opened.opened_at) * 1000))
        rollout = session.rollout(Outcome(), cut=session.cut)
        rows = experiences_of(task, place.sample, rollout, self._names, stamp)
        try:
            rows = await self._on_the_log(task, place.sample, rows, stamp)
        # Nothing may be lost silently: the role ends, and says why.
        except Exception as error:
            self.error = error
            raise
        ended = _Ended(place, session.turns, tuple(row.experience_id for row in rows))
        self.published += len(rows)
        self._ended[name] = ended
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        del self._open[name]
        self._policies.forget(name)
        self._forget_group(place.group)
        return ended

    async def _on_the_log(self, task: Task, sample: int, rows: list[Experience], stamp: Stamp) -> list[Experience]:
        """Publish rows; if they cannot be encoded or are too large, publish that the session failed."""
        try:
            await self._send(rows)
        except RequestError as error:
            log.warning("session %s cannot be published: %s", rows[0].sample_id, error)
            rows = [stamp.failed(task, sample, RolloutError(f"its trajectory cannot be published: {error}"))]
            await self._send(rows)
        return rows

    async def _send(self, rows: Sequence[Experience]) -> None:
        await asyncio.gather(*(self._publisher.publish("experiences", row) for row in rows))

    def _forget_group(self, group: str | None) -> None:
        known = self._groups.get(group) if group is not None else None
        if group is None or known is None:
            return
        if not any(name in self._open for name in sessions_of(group, known[0].samples)):
            del self._groups[group]


ENDED = "the session has ended; open another one, with another name"
