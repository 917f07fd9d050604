"""Explorers that serve one policy over HTTP, and a gateway in this process that asks them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from producers.gateway.access import Access
from producers.gateway.agent_sessions import AgentSessions
from producers.gateway.app import make_app
from producers.gateway.explorer_choice import ExplorerChoice
from producers.gateway.generation_server import GenerationServer
from producers.gateway.http_server import HttpServer
from producers.gateway.remote_policy import RemotePolicies
from producers.gateway.session_store import SessionStore
from rft.config import Config
from rft.policy.base import Policy
from rft.workflows.tools.formats.parsers import AUTO, find_parser
from schemas.events import Record

SECRET = "the secret of these tests, which is long enough"


def served_config(model: Path, **gateway: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"mode": "train"},
            "gateway": {"serve": True, "explorer_wait_s": 2.0, **gateway},
            "rollout": {"max_tokens": 500},
            "policy": {"model": str(model), "device": "cpu"},
        }
    )


@contextmanager
def explorers(config: Config, *policies: Policy) -> Iterator[list[GenerationServer]]:
    servers = [GenerationServer(config.gateway, SECRET, policy, ready=lambda: True) for policy in policies]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.close()


def choice_of(servers: list[GenerationServer]) -> ExplorerChoice:
    choice = ExplorerChoice()
    for number, server in enumerate(servers):
        choice.announced(f"explorer-{number}", server.url, {}, 1.0)
    return choice


class Published:
    """Keeps what would be on the log, in order."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Any]] = []
        self.failure: Exception | None = None
        """Raised once instead of the next event."""

    async def publish(self, entity: str, record: Record) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            error, self.failure = self.failure, None
            raise error
        self.records.append((entity, record))

    def of(self, entity: str) -> list[Any]:
        return [record for name, record in self.records if name == entity]


class ServedGateway:
    """The role's parts without a log: ``published`` stands for it."""

    def __init__(self, config: Config, servers: list[GenerationServer], store: SessionStore | None = None) -> None:
        self.access = Access(SECRET)
        self.published = Published()
        self.choice = choice_of(servers)
        policies = RemotePolicies(config, SECRET, self.choice)
        parser = partial(find_parser, AUTO, policies.chat.source)
        self.sessions = AgentSessions(config, policies, self.published, "gateway-test", parser, store)
        self.server = HttpServer(make_app(self.sessions, self.access, opening=self.sessions), "127.0.0.1:0")
        self.server.start()
        self.url = self.server.url()

    def __enter__(self) -> ServedGateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine where the sessions live."""

        async def call() -> Any:
            return await self.server.call(coroutine)

        return asyncio.run(call())
