"""Runs the gateway as a role: agents come by themselves, and what the policy writes for them is published.

The server has a thread with an event loop, in which the sessions and the connections to explorers live. The main thread
ends idle sessions and says what the role does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
from functools import cache, partial
from pathlib import Path

from starlette.types import ASGIApp

from producers.gateway.access import Access
from producers.gateway.agent_sessions import AgentSessions
from producers.gateway.app import make_app
from producers.gateway.event_publisher import LINGER_MS, EventPublisher
from producers.gateway.explorer_choice import ExplorerChoice
from producers.gateway.explorer_watch import ExplorerWatch
from producers.gateway.http_server import HttpServer
from producers.gateway.remote_policy import RemotePolicies
from producers.gateway.secret import served_secret, token_file
from producers.gateway.session_store import SessionStore
from rft.config import Config
from rft.errors import ConfigError, RftError
from rft.event_loop import run_in_loop
from rft.log.writer import EventWriter
from rft.telemetry.activity import role_activity
from rft.workflows.tools.formats.parsers import find_parser

TICK_S = 0.2
IDLE_CHECK_S = 2.0
END_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 3.0
NO_TEMPLATE = (
    "gateway.serve: the tokenizer in policy.model has no chat template, so no agent can be answered. Set "
    "tokenizer.chat_template and save it in that folder"
)

log = logging.getLogger("rft")


def run(config: Config, stop: threading.Event) -> None:
    """Serve agents until ``stop`` is set.

    Raises ConfigError if ``gateway.serve`` is off, the address cannot be used or there is no chat template;
    PolicyError without a tokenizer; BrokerError.
    """
    if not config.gateway.serve:
        raise ConfigError("gateway.serve is false, so explorers generate for no gateway: set it to true for all roles")
    name = f"gateway-{platform.node()}-{os.getpid()}"
    writer = EventWriter(config, name, linger_ms=LINGER_MS)
    publisher = EventPublisher(writer)
    try:
        writer.prepare("experiences", "rewards")
        run_in_loop(_serve(config, name, publisher, stop))
    finally:
        publisher.close()


async def _serve(config: Config, name: str, publisher: EventPublisher, stop: threading.Event) -> None:
    gateway = Gateway(config, name, publisher)
    gateway.start()
    try:
        while not stop.is_set():
            await gateway.tick()
            await asyncio.sleep(TICK_S)
    finally:
        await gateway.close()


class Gateway:
    """The parts of the role, connected."""

    def __init__(self, config: Config, name: str, publisher: EventPublisher) -> None:
        """Connect and listen. Raises ConfigError, PolicyError, BrokerError."""
        secret = served_secret(config)
        self._publisher = publisher
        self._store = SessionStore(config, name) if config.gateway.log_turns != "none" else None
        self._choice = ExplorerChoice()
        self._policies = RemotePolicies(config, secret, self._choice)
        chat = self._policies.chat
        if not chat.source:
            raise ConfigError(NO_TEMPLATE)
        self._sessions = AgentSessions(
            config,
            self._policies,
            publisher,
            name,
            cache(partial(find_parser, config.rollout.tool_format, chat.source)),
            self._store,
        )
        app = make_app(self._sessions, Access(secret), opening=self._sessions)
        self._server = _listen(app, config)
        self._watch = ExplorerWatch(config, name, secret, self._choice, self._server.call_soon)
        self._activity = role_activity()
        self._seen = (0, 0)
        self._idle_check = 0.0
        variable = config.gateway.token_env
        where = f"the variable {variable}" if variable else str(token_file(config))
        log.info("agents reach the policy at %s/v1; the token is in %s", self._server.url(), where)

    def start(self) -> None:
        """Follow the explorers and serve."""
        self._server.start()
        self._watch.start()
        self._server.run(self._sessions.take_up())

    async def tick(self) -> None:
        """Raise the error that ended one of the parts, if one did; end idle sessions; say what the role does."""
        for part in (self._server, self._watch, self._publisher, self._sessions):
            if part.error:
                raise part.error
        now = asyncio.get_running_loop().time()
        if now >= self._idle_check:
            self._idle_check = now + IDLE_CHECK_S
            self._server.run(self._sessions.end_idle())
        self._report()

    async def close(self) -> None:
        """Answer nothing any more. Sessions that are on the log wait for the next gateway; others are published."""
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._server.call(self._sessions.close())
                await self._server.call(self._policies.close())
        except (TimeoutError, RftError) as error:
            log.warning("%d sessions are left as they are: %s", self._sessions.open_sessions, error or "no time left")
        self._server.close()
        self._watch.close(JOIN_TIMEOUT_S)
        if self._store:
            self._store.close()
        log.info("%d requests, %d experiences", self._sessions.answered, self._sessions.published)

    def _report(self) -> None:
        sessions = self._sessions
        seen = (sessions.answered, sessions.published)
        if seen != self._seen:
            self._seen = seen
            self._activity.progressed()
        if not self._choice.explorers:
            self._activity.waits("an explorer that generates for it")
        elif sessions.under_way:
            self._activity.works("serves %d requests at %s", sessions.under_way, self._server.url())
        else:
            self._activity.waits("requests at %s", self._server.url())


def _listen(app: ASGIApp, config: Config) -> HttpServer:
    """Listen where the last gateway of this run did, if the port may be any: agents keep its address."""
    listen, kept = config.gateway.listen, config.run.path / "gateway" / "url"
    server: HttpServer | None = None
    host, _, port = listen.rpartition(":")
    if int(port) == 0 and (last := _port(kept)):
        try:
            server = HttpServer(app, f"{host}:{last}")
        except ConfigError:
            log.warning("port %d, which the last gateway of this run had, is taken: agents need the new address", last)
    server = server or HttpServer(app, listen)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(server.url() + "\n", encoding="ascii")
    except OSError as error:
        log.warning("the gateway's address cannot be kept in %s: %s", kept, error)
    return server


def _port(kept: Path) -> int | None:
    try:
        port = kept.read_text(encoding="ascii").strip().rpartition(":")[2]
    except (OSError, ValueError):
        return None
    return int(port) if port.isdecimal() and 0 < int(port[:6]) < 65536 else None
