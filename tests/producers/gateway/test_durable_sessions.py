"""Sessions of agents that come by themselves outlive the gateway that served them, on a real log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving_explorers import SECRET, ServedGateway, explorers, served_config

from producers.gateway.generation_server import GenerationServer
from producers.gateway.session_store import SessionStore
from rft.config import Config
from rft.log.topics import ensure_topics
from rft.policy.transformers.policy import TransformersPolicy
from tests.producers.recording_policy import RecordingPolicy


@pytest.fixture(scope="module")
def config(embedded_broker: str, chat_policy: TransformersPolicy) -> Config:
    base = served_config(Path(chat_policy.chat._tokenizer.name_or_path), idle_s=1.0)
    log = {
        "broker": {"kind": "external", "bootstrap_servers": embedded_broker},
        "log": {"namespace": f"test-{uuid.uuid4().hex[:12]}"},
    }
    made = Config.model_validate(base.model_dump(exclude_unset=True) | log)
    ensure_topics(made)
    return made


@pytest.fixture
def recording(chat_policy: TransformersPolicy) -> RecordingPolicy:
    return RecordingPolicy(chat_policy, seed=-1)


@pytest.fixture
def servers(config: Config, recording: RecordingPolicy) -> Iterator[list[GenerationServer]]:
    with explorers(config, recording) as found:
        yield found


@contextmanager
def gateway_of(config: Config, servers: list[GenerationServer]) -> Iterator[ServedGateway]:
    """Serve with the store, and end without a word, as a killed process does."""
    store = SessionStore(config, f"gateway-{uuid.uuid4().hex[:8]}")
    try:
        with ServedGateway(config, servers, store) as gateway:
            yield gateway
    finally:
        store.close()


def ask(gateway: ServedGateway, session: str, messages: list[Any]) -> None:
    """Add the policy's answer to the messages."""
    key = gateway.access.key(session)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(model="policy", messages=messages, max_tokens=8)
    messages.append(answer.choices[0].message)


def post(gateway: ServedGateway, path: str, body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {SECRET}"}
    return httpx.post(f"{gateway.url}/rft/{path}", json=body, headers=headers, timeout=60)


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_conversation_goes_on_in_another_gateway(
    config: Config, servers: list[GenerationServer], recording: RecordingPolicy
) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello."}]
    with gateway_of(config, servers) as first:
        ask(first, "long", messages)
        assert post(first, "sessions/long/reward", {"rewards": {"tests": 0.5}}).status_code == 200
        assert first.published.records == []
    messages.append({"role": "user", "content": "Go on."})
    with gateway_of(config, servers) as second:
        ask(second, "long", messages)
        ended = post(second, "sessions/long/end", {}).json()
        (row,) = second.published.of("experiences")
    prompt, done = recording.calls[-1]
    assert row.tokens.tolist() == prompt + done.tokens.tolist()
    first_prompt, first_done = recording.calls[0]
    before = first_prompt + first_done.tokens.tolist()
    assert prompt[: len(before)] == before
    assert dict(row.rewards) == {"tests": 0.5}
    with gateway_of(config, servers) as third:
        assert post(third, "sessions/long/end", {}).json() == ended
        assert post(third, "sessions/long/reward", {"reward": 1, "turn": 1}).status_code == 200
        assert post(third, "sessions/long/reward", {"reward": 1, "turn": 2}).status_code == 400
        assert [reward.experience_id for reward in third.published.of("rewards")] == [row.experience_id]
        with pytest.raises(openai.APIStatusError) as gone:
            ask(third, "long", messages)
        assert gone.value.status_code == 410


def test_what_a_killed_gateway_left_open_ends_when_nobody_asks_for_it(
    config: Config, servers: list[GenerationServer]
) -> None:
    with gateway_of(config, servers) as first:
        ask(first, "left", [{"role": "user", "content": "Hello."}])
        assert post(first, "sessions", {"group": "pair", "samples": 2, "answer": "x"}).status_code == 200
    with gateway_of(config, servers) as second:
        second.run(second.sessions.take_up())
        assert second.sessions.open_sessions == 3
        again = post(second, "sessions", {"group": "pair", "samples": 2, "answer": "x"})
        assert again.status_code == 200
        assert post(second, "sessions", {"group": "pair", "samples": 2}).status_code == 400
        until(lambda: not second.sessions.open_sessions or second.run(second.sessions.end_idle()))
        found = {row.experience_id: row.finish_reason for row in second.published.of("experiences")}
    assert found.keys() == {"session-left/0", "group-pair/0", "group-pair/1"}
    assert found["session-left/0"] != "error"
    assert found["group-pair/0"] == found["group-pair/1"] == "error"


def test_a_session_that_another_gateway_serves_is_left_to_it(config: Config, servers: list[GenerationServer]) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hello."}]
    with gateway_of(config, servers) as serving, gateway_of(config, servers) as other:
        ask(serving, "busy", messages)
        other.run(other.sessions.take_up())
        messages.append({"role": "user", "content": "Go on."})
        ask(serving, "busy", messages)
        until(lambda: not other.sessions.open_sessions or other.run(other.sessions.end_idle()))
        assert other.published.records == []
        assert post(serving, "sessions/busy/end", {}).status_code == 200
        (row,) = serving.published.of("experiences")
    assert row.experience_id == "session-busy/0"
