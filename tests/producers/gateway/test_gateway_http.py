"""What the gateway promises every client over HTTP: access, bounds, rewards, streams that wait, canceled work."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from conversation_sessions import ConversationSessions, GatewayServer

from producers.gateway.app import Limits
from producers.gateway.contract import SessionReward

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 5}
CHAT_PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/rft/sessions/one/reward"]


@pytest.fixture
def guarded(sessions: ConversationSessions) -> Iterator[GatewayServer]:
    """A gateway that has a token."""
    server = GatewayServer(sessions, "a secret", Limits(body_bytes=100_000, body_deadline_s=1.0))
    yield server
    server.close()


def test_the_path_names_the_session_for_both_sdks(guarded: GatewayServer, sessions: ConversationSessions) -> None:
    key = guarded.access.key("one")
    base = f"{guarded.url}/s/one"
    with openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0) as client:
        client.chat.completions.create(**CHAT)
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.AuthenticationError) as caught:
            client.with_options(base_url=f"{guarded.url}/s/two/v1").chat.completions.create(**CHAT)
        assert caught.value.code == "invalid_api_key"
    with anthropic.Anthropic(base_url=base, api_key="a secret", max_retries=0) as other:
        other.messages.create(**CHAT)
        with pytest.raises(anthropic.AuthenticationError):
            other.with_options(api_key="wrong").messages.create(**CHAT)
    assert list(sessions.conversations) == ["one"]


def test_the_key_names_the_session(guarded: GatewayServer, sessions: ConversationSessions) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.access.key("one"), max_retries=0) as client:
        client.chat.completions.create(**CHAT)
        for key in ("one", "one.0", "a secret", guarded.access.key("one").replace("one", "two")):
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key=key).chat.completions.create(**CHAT)
    assert list(sessions.conversations) == ["one"]


@pytest.mark.parametrize("path", CHAT_PATHS)
def test_a_body_is_bounded_in_size_depth_time_and_type(guarded: GatewayServer, path: str) -> None:
    headers = {"authorization": f"Bearer {guarded.access.key('one')}", "content-type": "application/json"}

    def status(content: Any, **changes: str) -> int:
        answer = httpx.post(f"{guarded.url}{path}", content=content, headers=headers | changes)
        assert "error" in answer.json()
        return answer.status_code

    def slowly() -> Iterator[bytes]:
        yield b'{"messages":'
        time.sleep(1.5)
        yield b"[]}"

    assert status(b"x" * 100_001) == 413
    assert status(iter([b"x" * 60_000, b"x" * 60_000])) == 413  # a chunked body does not say its length
    assert status(b"{}", **{"content-type": "text/plain"}) == 415
    assert status(b"{}", authorization="Bearer wrong") == 401
    assert status(slowly()) == 408
    for malformed in (b"", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"a":' * 70 + b"1" + b"}" * 70, b'{"n": 1e999}'):
        assert status(malformed) == 400
    assert status(b'{"n": NaN}') == status(b'{"n": ' + b"9" * 5000 + b"}") == status(rb'{"a": "\ud800"}') == 400


def test_rewards_come_in_by_http(gateway: GatewayServer, sessions: ConversationSessions) -> None:
    httpx.post(f"{gateway.url}/s/one/v1/chat/completions", json=CHAT).raise_for_status()
    url = f"{gateway.url}/rft/sessions/one"
    assert httpx.get(url).json() == {"session": "one", "state": "open", "turns": 1}
    for body in ({"reward": 1}, {"reward": -0.5, "turn": 0, "revision": 2}, {"rewards": {"style": 0.5, "tests": 1}}):
        assert httpx.post(f"{url}/reward", json=body).status_code == 200
    assert [reward for _, reward in sessions.rewards] == [
        SessionReward(1.0),
        SessionReward(-0.5, 0, revision=2),
        SessionReward(rewards={"style": 0.5, "tests": 1.0}),
    ]
    for wrong in (
        *({}, {"reward": "1"}, {"reward": True}, {"reward": 1e10}, {"reward": 1, "turn": -1}, {"rewards": {}}),
        *({"rewards": {"a": None}}, {"rewards": {"a": 1}, "turn": 0}, {"reward": 1, "rewards": {"a": 1}}, {"score": 1}),
    ):
        answer = httpx.post(f"{url}/reward", json=wrong)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    for method, path in (("GET", "/rft/sessions/none"), ("POST", "/rft/sessions/none/reward")):
        answer = httpx.request(method, f"{gateway.url}{path}", json={"reward": 1})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


def test_rewards_need_the_sessions_key_or_the_token(guarded: GatewayServer, sessions: ConversationSessions) -> None:
    url, key = f"{guarded.url}/rft/sessions/one", guarded.access.key("one")
    httpx.post(f"{guarded.url}/v1/messages", json=CHAT, headers={"x-api-key": key}).raise_for_status()
    for given, status in ((key, 200), ("a secret", 200), (guarded.access.key("two"), 401), ("x", 401)):
        headers = {"authorization": f"Bearer {given}"}
        assert httpx.post(f"{url}/reward", json={"reward": 1}, headers=headers).status_code == status
        assert httpx.get(url, headers=headers).status_code == status


def test_unknown_paths_and_methods_are_errors_in_json(gateway: GatewayServer) -> None:
    assert httpx.get(f"{gateway.url}/v1/files").json()["error"]["message"] == "there is no such path"
    assert httpx.get(f"{gateway.url}/v1/chat/completions").status_code == 405
    assert httpx.post(f"{gateway.url}/s/%20/v1/chat/completions", json=CHAT).status_code == 404


def test_a_stream_that_waits_sends_comments(gateway: GatewayServer, sessions: ConversationSessions) -> None:
    sessions.delay_s = 0.7
    with httpx.stream("POST", f"{gateway.url}/s/one/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert 2 <= sum(line.startswith(":") for line in lines) <= 3
    assert lines[0].startswith(":")
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_hangs_up_cancels_its_generation(
    gateway: GatewayServer, sessions: ConversationSessions, streams: bool
) -> None:
    sessions.delay_s = 60.0
    body = json.dumps(CHAT | {"stream": streams}).encode()
    head = (
        "POST /s/one/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}"
    )
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        wait_until(lambda: sessions.requests)
        if streams:
            assert b"200 OK" in connection.recv(1000)
    wait_until(lambda: sessions.canceled == 1)


def test_sessions_at_once_never_mix(gateway: GatewayServer, sessions: ConversationSessions) -> None:
    async def talk(number: int) -> None:
        key = f"agent-{number}"
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            messages: list = []
            for turn in range(3):
                messages.append({"role": "user", "content": f"I am {number}"})
                made = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=4)
                assert made.rft == {"session": key, "turns": [turn]}
                messages.append(made.choices[0].message.model_dump())

    async def talk_all() -> None:
        await asyncio.gather(*(talk(number) for number in range(12)))

    asyncio.run(talk_all())
    assert len(sessions.conversations) == 12
    for name, (conversation,) in sessions.conversations.items():
        number = name.removeprefix("agent-")
        said = {message["content"] for message in conversation.messages if message["role"] == "user"}
        assert said == {f"I am {number}"}
        assert len(conversation.turns) == 3


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
