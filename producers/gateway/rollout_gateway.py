"""Runs the gateway inside an explorer: an HTTP server on a thread of its own, and a session for each try of a rollout.

The server has its own event loop, so that an agent that blocks the explorer's loop with a synchronous client still gets
its answer. Sessions live on the server's loop; the explorer reaches them through this class only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from producers.gateway.access import Access
from producers.gateway.app import make_app
from producers.gateway.http_server import HttpServer
from producers.gateway.open_session import OpenSession
from producers.gateway.rollout_sessions import RolloutSessions
from producers.gateway.secret import configured_secret
from producers.gateway.session import Session
from producers.gateway.turn_feed import TurnFeed
from rft.config import GatewayConfig
from rft.log.writer import EventWriter
from rft.policy.base import Policy, Sampling
from rft.workflows.tools.formats.parsers import AUTO, find_parser
from schemas.events import Task


class RolloutGateway:
    """Serves the sessions of one explorer."""

    def __init__(
        self,
        config: GatewayConfig,
        policy: Policy,
        model: str,
        tool_format: str = AUTO,
        turn_writer: EventWriter | None = None,
    ) -> None:
        """Listen. Raises ConfigError if the address cannot be used or the secret is not set.

        Args:
            config: Where to listen, and with which secret.
            policy: Writes the turns; it is asked for chat templates and tokens only, see ``session``.
            model: The name that the protocols show.
            tool_format: How the model writes calls of tools, as in ``rollout.tool_format``.
            turn_writer: Publishes the turns for those who watch; None to publish none.
        """
        self._find_parser = cache(lambda: find_parser(tool_format, policy.chat.source))
        self._turn_writer = turn_writer
        self._sessions = RolloutSessions(policy, model, config.max_requests)
        self._access = Access(configured_secret(config) or secrets.token_hex(32))
        # An agent of a rollout runs on this machine. Where agents come by themselves, the role has the address.
        listen = "127.0.0.1:0" if config.serve else config.listen
        self._server = HttpServer(make_app(self._sessions, self._access), listen)
        self._url = self._server.url()

    @property
    def error(self) -> Exception | None:
        """What ended the server, if it was not ``close``."""
        return self._server.error

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def close(self) -> None:
        """End the server. Requests that are being answered are dropped."""
        self._server.close()

    @asynccontextmanager
    async def session(self, task: Task, policy: Policy, sampling: Sampling) -> AsyncIterator[OpenSession]:
        """Open a session for one try of a rollout, and end it on leaving.

        Args:
            task: The task.
            policy: Writes this session's turns.
            sampling: What requests leave open.
        """
        name = f"s{secrets.token_hex(16)}"
        journal = TurnFeed(self._turn_writer, name) if self._turn_writer else None
        session = Session(task, policy, sampling, self._find_parser, journal)
        try:
            await self._server.call(self._sessions.open(name, session))
            yield OpenSession(name, self._access.key(name), f"{self._url}/v1", self._url, session)
        finally:
            await asyncio.shield(self._server.call(self._sessions.end(name)))
