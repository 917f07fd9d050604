"""Anthropic's own SDK, unchanged, talks to the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from conversation_sessions import ConversationSessions, GatewayServer

from producers.gateway.contract import OverloadedError, SessionEndedError, UnknownSessionError
from rft.errors import PolicyError, TokenBudgetError

TOOL = {
    "name": "weather",
    "description": "Tell the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
HELLO = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="one", max_retries=0) as client:
        yield client


def test_a_message_gives_the_turn(client: anthropic.Anthropic, sessions: ConversationSessions) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    made = client.messages.create(
        model="tiny", messages=HELLO, system=system, max_tokens=12, extra_body={"return_token_ids": True}
    )
    (conversation,) = sessions.conversations["one"]
    (turn,) = conversation.turns
    assert "".join(block.text for block in made.content) == turn.content
    assert made.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[turn.finish_reason]
    assert [*made.prompt_token_ids, *made.token_ids] == conversation.rows()[0].tokens.tolist()
    assert (made.usage.input_tokens, made.usage.output_tokens) == (turn.prompt_tokens, len(turn.tokens))
    assert sessions.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert made.rft == {"session": "one", "turns": [0]}


def test_an_agent_calls_tools_and_its_conversation_stays_one_row(
    client: anthropic.Anthropic, sessions: ConversationSessions
) -> None:
    asked = {"model": "tiny", "tools": [TOOL], "max_tokens": 16}
    first = client.messages.create(messages=HELLO, tool_choice={"type": "any"}, **asked)
    (use,) = first.content
    assert (use.type, use.name, use.input) == ("tool_use", "weather", {"city": "Łódź", "days": 2})
    assert sessions.requests[0].tool_choice == "required"
    result = [
        {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]},
        {"type": "text", "text": "Well?"},
    ]
    echoed = {"role": "assistant", "content": [block.model_dump() for block in first.content]}
    client.messages.create(messages=[*HELLO, echoed, {"role": "user", "content": result}], **asked)
    request = sessions.requests[-1]
    assert [message["role"] for message in request.messages] == ["user", "assistant", "tool", "user"]
    assert request.messages[2] == {"role": "tool", "tool_call_id": use.id, "name": "weather", "content": "rain"}
    assert request.tools[0] == {
        "type": "function",
        "function": {"name": "weather", "description": "Tell the weather.", "parameters": TOOL["input_schema"]},
    }
    assert [len(made.turns) for made in sessions.conversations["one"]] == [2]


def test_a_stream_says_what_a_whole_message_says(client: anthropic.Anthropic, sessions: ConversationSessions) -> None:
    sessions.thinks = True
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**asked)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    with client.with_options(api_key="two").messages.stream(**asked) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(texts) > 1
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
    again = [*HELLO, {"role": "assistant", "content": [block.model_dump() for block in whole.content]}]
    client.messages.create(**asked | {"messages": [*again, {"role": "user", "content": "And?"}]})
    assert sessions.requests[-1].messages[1]["reasoning_content"] == "Let me think.\nYes."
    assert len(sessions.conversations["one"]) == 1


def test_a_stream_of_a_call(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="tiny", messages=HELLO, tools=[TOOL], max_tokens=200) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"city": "Łódź", "days": 2}


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 60, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**asked).content[0].text
    stop = whole[5:7]
    cut = client.with_options(api_key="two").messages.create(**asked, stop_sequences=["\n\n\n\n", stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    assert "".join(block.text for block in cut.content) == whole[: whole.index(stop)]


def test_tokens_are_counted_without_generating(client: anthropic.Anthropic, sessions: ConversationSessions) -> None:
    counted = client.messages.count_tokens(model="tiny", messages=HELLO, system="Be brief.", tools=[TOOL])
    assert sessions.conversations == {}
    made = client.messages.create(model="tiny", messages=HELLO, system="Be brief.", tools=[TOOL], max_tokens=1)
    assert counted.input_tokens == made.usage.input_tokens


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        ("tools[0].type", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        ("top_k", {"extra_body": {"top_k": 5}}),
        ("stop_sequences", {"stop_sequences": [""]}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: anthropic.Anthropic, param: str, changes: dict) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 5} | changes)
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert caught.value.body["error"]["message"].startswith(f"{param}: ")


FAILURES = [
    (UnknownSessionError("no such session"), 404, "not_found_error"),
    (SessionEndedError("it has ended"), 410, "invalid_request_error"),
    (OverloadedError("too much", 2.5), 429, "rate_limit_error"),
    (TokenBudgetError("the context is full"), 400, "invalid_request_error"),
    (PolicyError("out of memory"), 503, "api_error"),
    (ZeroDivisionError("secret"), 500, "api_error"),
]


@pytest.mark.parametrize(("failure", "status", "kind"), FAILURES)
def test_failures_are_the_sdks_own_errors(
    client: anthropic.Anthropic, sessions: ConversationSessions, failure: Exception, status: int, kind: str
) -> None:
    sessions.failure = failure
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="tiny", messages=HELLO, max_tokens=5)
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, kind)
    assert "secret" not in str(caught.value)


def test_a_failure_in_a_stream_that_has_begun_is_an_error_of_the_sdk(
    client: anthropic.Anthropic, sessions: ConversationSessions
) -> None:
    sessions.failure, sessions.delay_s = PolicyError("out of memory"), 0.5
    with (
        pytest.raises(anthropic.APIError, match="out of memory"),
        client.messages.stream(model="tiny", messages=HELLO, max_tokens=5) as stream,
    ):
        stream.get_final_message()


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
