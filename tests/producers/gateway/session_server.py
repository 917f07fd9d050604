"""Serves sessions that are on the log, as a process of its own that a test may kill at any moment.

    python session_server.py CONFIG MODEL PORT CALLS HOLD

Each call of the policy is appended to the file CALLS when it has ended. While the file HOLD exists, no answer leaves:
its turn is on the log by then. A reward ends a session, and its rows are published.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from producers.gateway.access import Access
from producers.gateway.app import make_app
from producers.gateway.contract import Answer, ChatRequest, SessionEndedError, SessionReward
from producers.gateway.session import Session
from producers.gateway.session_store import SessionStore
from rft.config import Config, PolicyConfig
from rft.config_sources import load_config
from rft.log.writer import EventWriter
from rft.policy.base import Generation, Policy, Sampling
from rft.policy.transformers.policy import TransformersPolicy
from rft.workflows.experiences import make_experiences
from rft.workflows.rollout import Outcome
from rft.workflows.seeded_policy import SeededPolicy
from schemas.events import Task

SAMPLING = Sampling(4000, seed=5)


class NotedPolicy(SeededPolicy):
    """Notes in a file what the engine has read and written."""

    def __init__(self, policy: Policy, calls: Path) -> None:
        super().__init__(policy, SAMPLING.seed)
        self._file = calls

    async def generate(self, prompt_tokens: Sequence[int], sampling: Sampling) -> Generation:
        done = await super().generate(prompt_tokens, sampling)
        with self._file.open("a") as file:
            file.write(json.dumps([list(prompt_tokens), done.tokens.tolist()]) + "\n")
        return done


class LoggedSessions:
    """Is :class:`producers.gateway.contract.Sessions`: opens sessions for whoever comes, or takes them up again."""

    models: Sequence[str] = ("tiny",)

    def __init__(self, config: Config, policy: Policy, hold: Path) -> None:
        self._config = config
        self._policy = policy
        self._hold = hold
        self._store = SessionStore(config, "gateway-test")
        self._open: dict[str, asyncio.Future[Session]] = {}

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        answer = await (await self._find(session)).complete(request)
        while self._hold.exists():
            self._hold.with_suffix(".held").touch()
            await asyncio.sleep(0.01)
        return answer

    async def count(self, session: str, request: ChatRequest) -> int:
        return 0

    async def reward(self, session: str, reward: SessionReward) -> None:
        found = await self._find(session)
        await found.reward(reward)
        await found.end()
        stamp: dict[str, Any] = {"source": "gateway-test", "model": "policy", "now_ms": 1, "duration_ms": 1}
        rows = make_experiences(session_task(session), 0, found.rollout(Outcome()), **stamp)

        def publish() -> None:
            with EventWriter(self._config, "gateway-test") as writer:
                for row in rows:
                    writer.send("experiences", row)

        await asyncio.to_thread(publish)
        await found.journal.end()  # type: ignore[union-attr]

    async def describe(self, session: str) -> Mapping[str, Any]:
        return (await self._find(session)).describe()

    def decode(self, tokens: Sequence[int]) -> str:
        return self._policy.chat.decode(tokens, special=True)

    async def _find(self, name: str) -> Session:
        if name not in self._open:
            self._open[name] = asyncio.ensure_future(self._take_up(name))
        return await asyncio.shield(self._open[name])

    async def _take_up(self, name: str) -> Session:
        found = await self._store.find(name)
        if found is None:
            journal = self._store.begin(name, session_task(name), seed=SAMPLING.seed)
            return Session(session_task(name), self._policy, SAMPLING, journal=journal)
        if found.ended:
            raise SessionEndedError("the session has ended")
        session = Session(found.record.task, self._policy, SAMPLING, journal=found.journal)
        session.restore(found.record, found.turns)
        return session


def session_task(name: str) -> Task:
    return Task(name, -1, "train", "agents", "", None, 1, SAMPLING.max_tokens, 1.0, 1.0, SAMPLING.seed, 0, 0)


def main(config_path: str, model: str, port: str, calls: str, hold: str) -> None:
    config = load_config(Path(config_path))
    policy = NotedPolicy(TransformersPolicy(PolicyConfig(model=model, device="cpu")), Path(calls))
    app = make_app(LoggedSessions(config, policy, Path(hold)), Access(None))
    uvicorn.Server(uvicorn.Config(app, port=int(port), log_level="warning", ws="none", lifespan="off")).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
