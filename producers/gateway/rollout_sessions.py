"""Keeps the sessions of the rollouts of one explorer: each is opened for one try of one rollout, and ends with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from producers.gateway.contract import (
    Answer,
    ChatRequest,
    OverloadedError,
    SessionEndedError,
    SessionReward,
    UnknownSessionError,
)
from producers.gateway.session import Session
from rft.policy.base import Policy

RETRY_AFTER_S = 1.0
ENDED_KEPT = 10_000
"""Names of ended sessions that are remembered, so that their agents learn what has happened."""


class RolloutSessions:
    """Is :class:`producers.gateway.contract.Sessions` for agents that an explorer starts. They open no session."""

    def __init__(self, policy: Policy, model: str, max_requests: int) -> None:
        """Serve ``policy`` under the name ``model`` to at most ``max_requests`` requests at once."""
        self._policy = policy
        self._model = model
        self._max_requests = max_requests
        self._open: dict[str, Session] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def models(self) -> Sequence[str]:
        """The model's name."""
        return (self._model,)

    async def open(self, name: str, session: Session) -> None:
        """Let requests reach a session by its name."""
        self._open[name] = session

    async def end(self, name: str) -> None:
        """End a session. It answers nothing any more; a second call does nothing."""
        session = self._open.pop(name, None)
        if session is None:
            return
        self._ended[name] = None
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        await session.end()

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        """Return the next turns, see :meth:`producers.gateway.session.Session.complete`.

        Raises OverloadedError if as many requests are under way as may be.
        """
        found = self._session(session)
        if sum(other.under_way for other in self._open.values()) >= self._max_requests:
            raise OverloadedError(f"{self._max_requests} requests are under way (gateway.max_requests)", RETRY_AFTER_S)
        return await found.complete(request)

    async def count(self, session: str, request: ChatRequest) -> int:
        """Return how many tokens the request has when it is rendered as a whole. Raises RequestError."""
        self._session(session)
        chat = self._policy.chat
        return len(chat.encode(chat.render(request.messages, request.tools, prompting=True)))

    async def reward(self, session: str, reward: SessionReward) -> None:
        """Keep a reward. It is published with the experience when the rollout ends."""
        await self._session(session).reward(reward)

    async def describe(self, session: str) -> Mapping[str, Any]:
        """Return what is known of a session, as JSON."""
        return self._session(session).describe()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens kept."""
        return self._policy.chat.decode(tokens, special=True)

    def _session(self, name: str) -> Session:
        if name in self._open:
            return self._open[name]
        if name in self._ended:
            raise SessionEndedError("the session has ended with its rollout")
        raise UnknownSessionError("there is no session of this name: an explorer opens one for each rollout")
