"""``kill -9`` the process that serves the gateway in the middle of a conversation, and start it again at its address:
the agent's own retries go on with the same tokens, and the experience holds what was answered exactly once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from brokers import ConfigMaker
from tiny_chat import make_chat_model

from rft.config import Config
from rft.config_sources import load_config
from rft.config_toml import to_toml
from rft.log.topics import ensure_topics
from schemas.events import Experience
from tests.producers.roles import Log

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).with_name("session_server.py")
REPOSITORY = Path(__file__).parents[3]


class Gateway:
    """The server's process, at one address for all of its lives."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.folder = folder
        self.calls, self.hold, self.held = folder / "calls", folder / "hold", folder / "hold.held"
        self._config = folder / "config.toml"
        self._config.write_text(to_toml(config.model_dump(mode="json", exclude_none=True)))
        make_chat_model(folder / "model")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, self._config, self.folder / "model", str(self.port), self.calls, self.hold],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def engine_calls(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """What the engine has read and written, in all lives."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [(tuple(read), tuple(written)) for read, written in map(json.loads, lines)]

    def wait_until_held(self) -> None:
        deadline = time.monotonic() + 60
        while not self.held.exists():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)


@pytest.fixture
def gateway(kafka_broker: str, make_config: ConfigMaker, tmp_path: Path) -> Iterator[Gateway]:
    config = make_config(kafka_broker)
    ensure_topics(config)
    server = Gateway(config, tmp_path)
    yield server
    server.kill()
    print((tmp_path / "log").read_text(), file=sys.stderr)


@pytest.fixture
def log(kafka_broker: str, gateway: Gateway) -> Iterator[Log]:
    with Log(load_config(gateway.folder / "config.toml"), "experiences", "turns") as log:
        yield log


class Agent:
    """Holds a conversation by OpenAI's SDK, whose retries are all that it does about a gateway that is away."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self._client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=name, max_retries=60, timeout=60)
        self._messages: list[dict[str, Any]] = []
        self.turns: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        """The tokens of each turn, as they were answered."""

    def ask(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})
        made = self._client.chat.completions.create(
            model="tiny", messages=self._messages, max_tokens=12, extra_body={"return_token_ids": True}
        )
        choice = made.choices[0]
        self._messages.append({"role": "assistant", "content": choice.message.content})
        self.turns.append((tuple(made.prompt_token_ids), tuple(choice.token_ids)))


def test_an_agent_goes_on_after_its_gateway_was_killed(gateway: Gateway, log: Log) -> None:
    agent = Agent(gateway, "conversation")
    agent.ask("one")
    agent.ask("two")
    # Killed when the turn is on the log and its answer has not left.
    gateway.hold.touch()
    asking = threading.Thread(target=agent.ask, args=("three",))
    asking.start()
    gateway.wait_until_held()
    gateway.kill()
    gateway.hold.unlink()
    before = gateway.engine_calls()
    gateway.start()
    asking.join(120)
    assert len(agent.turns) == 3
    assert gateway.engine_calls() == before, "the retry got the turn that was on the log"
    agent.ask("four")
    assert agent.turns[3][0][: len(sum(agent.turns[2], ()))] == sum(agent.turns[2], ()), "it goes on with its tokens"
    # Killed between two requests; and several agents at once, killed while the policy writes for them.
    gateway.kill()
    gateway.start()
    agents = [agent, *(Agent(gateway, f"other-{number}") for number in range(4))]
    talks = [threading.Thread(target=lambda one=one: [one.ask(text) for text in "abcdef"]) for one in agents]
    for talk in talks:
        talk.start()
    begun = len(gateway.engine_calls())
    while len(gateway.engine_calls()) < begun + 8:
        assert any(talk.is_alive() for talk in talks)
        time.sleep(0.01)
    gateway.kill()
    gateway.start()
    for talk in talks:
        talk.join(120)
    assert [len(one.turns) for one in agents] == [10, 6, 6, 6, 6]
    names = ["conversation", *(f"other-{number}" for number in range(4))]
    for name in names:
        ended = httpx.post(
            f"{gateway.url}/rft/sessions/{name}/reward", json={"reward": 1}, headers={"x-api-key": name}, timeout=60
        )
        assert ended.status_code == 200, ended.text
    rows = log.wait("experiences", lambda rows: len(rows) >= len(names))
    taught = sorted(run for row in rows for run in runs_of(row))
    assert taught == sorted(turn for one in agents for turn in one.turns), "what was answered, once"
    assert Counter(taught) <= Counter(gateway.engine_calls())
    assert len(rows) == len(names), "each conversation is one row"
    with pytest.raises(openai.APIStatusError, match="ended"):
        agents[0].ask("more")


def runs_of(row: Experience) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the tokens that were read and written for each turn of a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.action_mask, [0]]).astype(int))).reshape(-1, 2)
    return [(tuple(row.tokens[:begin].tolist()), tuple(row.tokens[begin:end].tolist())) for begin, end in edges]
