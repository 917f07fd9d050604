"""No body, however malformed, is answered with a 500; and the pure parts of the protocols keep their promises."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from producers.gateway.access import Access
from producers.gateway.app import make_app
from producers.gateway.contract import Answer, ChatRequest, SessionReward
from producers.gateway.json_body import MAX_DEPTH, parse_object
from producers.gateway.pieces import PIECE_CHARS, pieces
from producers.gateway.token_texts import token_texts
from rft.errors import RequestError
from rft.workflows.conversation import Turn
from rft.workflows.messages import Reply, ToolCall

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
TURN = Turn(
    index=0,
    text="hi",
    raw="hi",
    reply=Reply("hi", "hm", (ToolCall("c", "f", {"a": 1}),)),
    tokens=np.array([1, 2], np.int32),
    logprobs=np.array([-1, -2], np.float32),
    versions=np.array([0, 0], np.int32),
    finish_reason="stop",
    prompt_tokens=1,
)
VALID: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "s"}]},
                {"role": "user", "content": "u", "name": "n"},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "r"},
                {"role": "tool", "tool_call_id": "c", "content": "t"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "stop": ["x"],
            "n": 1,
            "logprobs": True,
            "seed": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "logit_bias": {},
        },
    ),
    (
        "/v1/responses",
        {
            "model": "m",
            "instructions": "i",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "r"}], "content": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "u"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "t"},
            ],
            "tools": [{"type": "function"} | FUNCTION],
            "tool_choice": {"type": "function", "name": "f"},
            "max_output_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "stream": True,
            "store": True,
            "metadata": {},
            "text": {"format": {"type": "text"}},
            "include": ["message.output_text.logprobs"],
        },
    ),
    (
        "/v1/messages",
        {
            "model": "m",
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": "u"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "r", "signature": ""},
                        {"type": "text", "text": "u"},
                        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b"}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "t"}]},
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": FUNCTION["parameters"]}],
            "tool_choice": {"type": "tool", "name": "f"},
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "stop_sequences": ["x"],
            "stream": True,
            "output_config": {"effort": "low"},
            "thinking": {"type": "adaptive"},
        },
    ),
    ("/rft/sessions/one/reward", {"reward": 1.0, "turn": 2, "revision": 3}),
    ("/rft/sessions/one/reward", {"rewards": {"a": 1.0}, "revision": 3}),
]
VALID.append(("/v1/messages/count_tokens", VALID[2][1]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class OneAnswer:
    """Answers every request with the same turn."""

    models = ("m",)

    async def complete(self, session: str, request: ChatRequest) -> Answer:
        return Answer((TURN,) * request.n, (1,))

    async def count(self, session: str, request: ChatRequest) -> int:
        return len(request.messages)

    async def reward(self, session: str, reward: SessionReward) -> None:
        return None

    async def describe(self, session: str) -> dict[str, Any]:
        return {"state": "open", "turns": 1}

    def decode(self, tokens: Sequence[int]) -> str:
        return "x" * len(tokens)


@pytest.fixture(scope="module")
def app() -> Starlette:
    return make_app(OneAnswer(), Access(None))


def post(app: Starlette, path: str, content: bytes) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {"content-type": "application/json", "authorization": "Bearer one"}
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            return await client.post(path, content=content)

    return asyncio.run(send())


@pytest.mark.parametrize(("path", "body"), VALID)
def test_the_bodies_that_are_changed_are_valid_themselves(app: Starlette, path: str, body: dict[str, Any]) -> None:
    answer = post(app, path, json.dumps(body).encode())
    assert answer.status_code == 200, answer.text


@settings(max_examples=400)
@given(st.sampled_from(VALID), st.data())
def test_no_malformed_body_is_answered_with_500(app: Starlette, valid: tuple[str, dict], data: st.DataObject) -> None:
    """One value anywhere in a valid body is replaced, removed or joined by another."""
    path, body = valid[0], copy.deepcopy(valid[1])
    place: Any = body
    while True:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not names:
            break
        name = data.draw(st.sampled_from(names))
        if isinstance(place[name], dict | list) and place[name] and data.draw(st.booleans()):
            place = place[name]
            continue
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove":
            del place[name]
        elif change == "add" and isinstance(place, dict):
            place[data.draw(st.text(max_size=5))] = data.draw(JSON)
        else:
            place[name] = data.draw(JSON)
        break
    answer = post(app, path, json.dumps(body).encode("utf-8", "surrogatepass"))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@settings(max_examples=100)
@given(
    st.sampled_from([path for path, _ in VALID]), st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode())
)
def test_no_bytes_are_answered_with_500(app: Starlette, path: str, content: bytes) -> None:
    assert post(app, path, content).status_code in (200, 400)


@pytest.mark.parametrize(("path", "body"), VALID[:3])
def test_a_call_of_a_tool_that_there_is_not_may_be_sent_back(app: Starlette, path: str, body: dict[str, Any]) -> None:
    """A model invents names, and its agent repeats them."""
    changed = json.loads(json.dumps(body))
    items = changed.get("messages") or changed["input"]
    call = next(
        found
        for item in items
        for found in (item, *item.get("tool_calls", ()), *(part for part in item.get("content") or () if "id" in part))
        if found.get("type") in ("function", "function_call", "tool_use")
    )
    call.get("function", call)["name"] = "no such tool!"
    assert post(app, path, json.dumps(changed).encode()).status_code == 200


def test_a_call_that_could_not_be_read_is_said(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    unread = replace(TURN, reply=Reply("", faults=("The tool call could not be read: no JSON.",)))
    monkeypatch.setitem(globals(), "TURN", unread)
    for path, body in VALID[:3]:
        said = post(app, path, json.dumps(body | {"stream": False}).encode()).json()["rft"]
        assert said == {"session": "one", "turns": [0], "faults": [["The tool call could not be read: no JSON."]]}


def test_json_may_nest_as_deep_as_it_says() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)

    parse_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(RequestError, match="deeper"):
            parse_object(nested(levels))
    with pytest.raises(RequestError, match="more than"):
        parse_object(b'{"a": [' + b"0," * 200_000 + b"0]}")
    with pytest.raises(RequestError, match="more than"):
        parse_object(b'{"a": [' + b"[]," * 2_000_000)  # refused before it is parsed
    text = ',[{"' * 100_000
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}
    for other in ("utf-16", "utf-32", "latin-1"):
        with pytest.raises(RequestError, match="no JSON"):
            parse_object('{"é": 1}'.encode(other))


@pytest.mark.parametrize(
    "arguments", ['{"a": "\\ud83d"}', '{"a": NaN}', '{"a": 1e999}', "[1]", "{" * 9999, '{"a":' * 99]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_arguments_of_calls_are_bounded_as_bodies_are(app: Starlette, path: str, arguments: str) -> None:
    body: dict[str, Any] = {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}]}
    if path == "/v1/chat/completions":
        made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        body = {"messages": [{"role": "assistant", "tool_calls": [made]}]}
    answer = post(app, path, json.dumps(body).encode())
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].endswith("arguments")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30), st.booleans())
def test_the_texts_of_tokens_are_the_text(text: str, cut: bool) -> None:
    """A token of a byte tokenizer is a part of a character; the last token may leave one unfinished."""
    tokenizer = Tokenizer(
        models.BPE({sign: number for number, sign in enumerate(pre_tokenizers.ByteLevel.alphabet())}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = tokenizer.encode(text).ids
    if cut:
        tokens = tokens[:-1]
    texts = token_texts(tokens, tokenizer.decode)
    assert len(texts) == len(tokens)
    assert "".join(texts) == tokenizer.decode(tokens)


@given(st.text(max_size=300))
def test_pieces_are_the_text(text: str) -> None:
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(0 < len(piece) <= PIECE_CHARS for piece in cut)
