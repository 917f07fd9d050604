"""Runs the gateway inside an explorer: an HTTP server on a thread of its own, and a session for each try of a rollout.

The server has its own event loop, so that an agent that blocks the explorer's loop with a synchronous client still gets
its answer. Sessions live on the server's loop; the explorer reaches them through this class only.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import uvicorn

from producers.gateway.access import Access
from producers.gateway.app import make_app
from producers.gateway.rollout_sessions import RolloutSessions
from producers.gateway.session import OpenSession, Session
from rft.config import GatewayConfig
from rft.errors import ConfigError, PolicyError
from rft.policy.base import Policy, Sampling
from rft.workflows.tools.formats.parsers import AUTO, find_parser
from schemas.events import Task

T = TypeVar("T")
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection: otherwise they may send a request on one that is just being closed."""
JOIN_S = 5.0
LOOK_S = 1.0
"""How often a caller looks whether the server still runs."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class RolloutGateway:
    """Serves the sessions of one explorer."""

    def __init__(self, config: GatewayConfig, policy: Policy, model: str, tool_format: str = AUTO) -> None:
        """Listen. Raises ConfigError if the address cannot be used or the secret is not set.

        Args:
            config: Where to listen, and with which secret.
            policy: Writes the turns; it is asked for chat templates and tokens only, see ``session``.
            model: The name that the protocols show.
            tool_format: How the model writes calls of tools, as in ``rollout.tool_format``.
        """
        self._find_parser = cache(lambda: find_parser(tool_format, policy.chat.source))
        self._sessions = RolloutSessions(policy, model, config.max_requests)
        self._access = Access(_secret(config.token_env))
        self._socket = _listen(config.listen)
        self._url = _url(self._socket)
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(self._sessions, self._access),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
            )
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self.error: Exception | None = None
        """What ended the server, if it was not ``close``."""

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """End the server. Requests that are being answered are dropped."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._socket.close()

    @asynccontextmanager
    async def session(self, task: Task, policy: Policy, sampling: Sampling) -> AsyncIterator[OpenSession]:
        """Open a session for one try of a rollout, and end it on leaving.

        Args:
            task: The task.
            policy: Writes this session's turns; it gives each of them random numbers of its own.
            sampling: What requests leave open.
        """
        name = f"s{secrets.token_hex(16)}"
        session = Session(task, policy, sampling, self._find_parser)
        try:
            await self._call(self._sessions.open(name, session))
            yield OpenSession(name, self._access.key(name), f"{self._url}/v1", self._url, session)
        finally:
            await asyncio.shield(self._call(self._sessions.end(name)))

    async def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the server. Raises PolicyError if that has ended."""
        answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))
        while not answer.done():
            if not self._thread.is_alive():
                answer.cancel()
                coroutine.close()
                raise PolicyError(f"the gateway has ended: {self.error or 'it was closed'}")
            await asyncio.wait([answer], timeout=LOOK_S)
        return answer.result()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        # The explorer must end with this thread: the owner raises the error.
        except Exception as error:
            self.error = error


def _secret(variable: str | None) -> str:
    if variable is None:
        return secrets.token_hex(32)
    if not os.environ.get(variable):
        raise ConfigError(f"gateway.token_env = {variable!r}, but this variable is not set or empty: export a secret")
    return os.environ[variable]


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"gateway.listen = {address!r}: cannot listen there: {error}") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
