"""OpenAI's own SDK, unchanged, talks to the gateway: Chat Completions, and the errors of both of OpenAI's APIs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openai
import pytest
from conversation_sessions import ConversationSessions, GatewayServer

from producers.gateway.contract import OverloadedError, SessionEndedError, UnknownSessionError
from rft.errors import PolicyError, TokenBudgetError

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="one", max_retries=0) as client:
        yield client


def test_chat_gives_the_turn_with_its_exact_tokens(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    body = {"return_token_ids": True}
    made = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=12, logprobs=True, extra_body=body, store=False, user="me"
    )
    (conversation,) = sessions.conversations["one"]
    (turn,) = conversation.turns
    (row,) = conversation.rows()
    choice = made.choices[0]
    assert (made.object, made.model, made.rft) == ("chat.completion", "tiny", {"session": "one", "turns": [0]})
    assert (choice.message.content, choice.message.role, choice.message.tool_calls) == (turn.content, "assistant", None)
    assert choice.finish_reason == turn.finish_reason
    assert [*made.prompt_token_ids, *choice.token_ids] == row.tokens.tolist()
    assert made.usage.prompt_tokens == turn.prompt_tokens == len(made.prompt_token_ids)
    assert made.usage.completion_tokens == len(turn.tokens)
    assert made.usage.total_tokens == len(row.tokens)
    given = choice.logprobs.content
    assert np.array_equal(np.float32([token.logprob for token in given]), turn.logprobs)
    assert "".join(token.token for token in given) == sessions.decode(turn.tokens.tolist())
    assert all(bytes(token.bytes).decode() == token.token for token in given)


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI, gateway: GatewayServer) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 200, "temperature": 0, "logprobs": True}
    whole = client.chat.completions.create(**asked)
    other = client.with_options(api_key="two")
    chunks = list(other.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len(chunks) > 4
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, whole.choices[0].finish_reason]
    assert chunks[-2].choices[0].logprobs.model_dump() == whole.choices[0].logprobs.model_dump()
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_an_agent_calls_tools_and_its_conversation_stays_one_row(
    client: openai.OpenAI, sessions: ConversationSessions
) -> None:
    messages: list = [
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]}
    ]
    messages += HELLO
    asked = {"model": "tiny", "tools": [TOOL], "max_tokens": 8}
    first = client.chat.completions.create(messages=messages, tool_choice="required", **asked).choices[0]
    assert (first.finish_reason, first.message.content) in [("tool_calls", None), ("length", None)]
    (call,) = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Łódź","days":2}')
    # What an agent sends back has passed through its own JSON, and holds whatever fields the SDK knows.
    echoed = first.message.model_dump()
    echoed["tool_calls"][0]["function"]["arguments"] = '{ "days": 2, "city": "\\u0141\\u00f3d\\u017a" }'
    messages += [echoed, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(messages=messages, **asked)
    assert second.rft == {"session": "one", "turns": [1]}
    (conversation,) = sessions.conversations["one"]
    assert len(conversation.turns) == 2
    request = sessions.requests[-1]
    assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[0]["content"] == "Be\nbrief."
    assert request.messages[3] == {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "rain"}
    assert request.tools[0]["function"].keys() == {"name", "description", "parameters"}


def test_a_streamed_call_is_whole_in_the_sdks_own_accumulator(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": HELLO, "tools": [TOOL], "max_tokens": 200}
    with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"city":"Łódź","days":2}'


def test_n_choices_are_n_turns_of_one_prompt(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 6, "n": 3, "extra_body": {"return_token_ids": True}}
    made = client.chat.completions.create(**asked)
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    assert made.usage.completion_tokens == sum(len(choice.token_ids) for choice in made.choices)
    streamed = list(client.chat.completions.create(**asked, stream=True))
    assert {chunk.choices[0].index for chunk in streamed} == {0, 1, 2}
    assert streamed[0].prompt_token_ids == made.prompt_token_ids


def test_stop_texts_end_a_turn_and_are_left_out(client: openai.OpenAI) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 60, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stop = whole[5:7]
    cut = client.with_options(api_key="two").chat.completions.create(**asked, stop=stop).choices[0]
    assert (cut.finish_reason, cut.message.content) == ("stop", whole[: whole.index(stop)])


def test_thinking_is_reasoning_content(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    sessions.thinks = True
    message = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=6).choices[0].message
    assert message.reasoning_content == "Let me think.\nYes."
    client.chat.completions.create(
        model="tiny", messages=[*HELLO, message.model_dump(), {"role": "user", "content": "?"}], max_tokens=6
    )
    assert sessions.requests[-1].messages[1]["reasoning_content"] == "Let me think.\nYes."
    assert len(sessions.conversations["one"]) == 1


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("frequency_penalty", {"frequency_penalty": 0.5}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 2}),
        ("parallel_tool_calls", {"parallel_tool_calls": False}),
        ("beam", {"extra_body": {"beam": 2}}),
        ("n", {"n": 1000}),
        ("temperature", {"temperature": -1}),
        ("top_p", {"top_p": 0}),
        ("stop", {"stop": ["a"] * 17}),
        ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
        ("tools", {"tools": [TOOL, TOOL]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "rain"}}}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("messages[0].tool_call_id", {"messages": [{"role": "tool", "content": "x"}]}),
        (
            "messages[0].tool_calls[0].function.arguments",
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "[1]"}}],
                    }
                ]
            },
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, param: str, changes: dict) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO} | changes)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert str(caught.value.body["message"]).startswith(f"{param}: ")


FAILURES = [
    (UnknownSessionError("no such session"), openai.NotFoundError, 404, "session_not_found"),
    (SessionEndedError("it has ended"), openai.APIStatusError, 410, "session_ended"),
    (OverloadedError("too much", 2.5), openai.RateLimitError, 429, "rate_limit_exceeded"),
    (TokenBudgetError("the context is full"), openai.BadRequestError, 400, "context_length_exceeded"),
    (PolicyError("out of memory"), openai.InternalServerError, 503, "policy_error"),
    (ZeroDivisionError("secret"), openai.InternalServerError, 500, "internal_error"),
]


@pytest.mark.parametrize(("failure", "kind", "status", "code"), FAILURES)
def test_failures_are_the_sdks_own_errors(
    client: openai.OpenAI, sessions: ConversationSessions, failure: Exception, kind: type, status: int, code: str
) -> None:
    sessions.failure = failure
    for ask in (
        lambda: client.chat.completions.create(model="tiny", messages=HELLO),
        lambda: client.chat.completions.create(model="tiny", messages=HELLO, stream=True),
        lambda: client.responses.create(model="tiny", input="Hello?"),
    ):
        with pytest.raises(kind) as caught:
            ask()
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert "secret" not in str(caught.value)
        if status == 429:
            assert caught.value.response.headers["retry-after"] == "3"


def test_a_failure_in_a_stream_that_has_begun_is_an_error_of_the_sdk(
    client: openai.OpenAI, sessions: ConversationSessions
) -> None:
    sessions.failure, sessions.delay_s = PolicyError("out of memory"), 0.5
    stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="out of memory"):
        list(stream)
    with pytest.raises(openai.APIError, match="out of memory"):
        list(client.responses.create(model="tiny", input="Hello?", stream=True))


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
