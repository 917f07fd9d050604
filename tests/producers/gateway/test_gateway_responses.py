"""OpenAI's own SDK, unchanged, uses the Responses API of the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from conversation_sessions import ConversationSessions, GatewayServer

from producers.gateway.faults import RefusedError
from producers.gateway.response_store import ResponseStore

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Tell the weather.",
    "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="one", max_retries=0) as client:
        yield client


def test_a_response_gives_the_turn(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    made = client.responses.create(
        model="tiny",
        input="Hello?",
        instructions="Be brief.",
        max_output_tokens=16,
        include=["message.output_text.logprobs"],
        extra_body={"return_token_ids": True},
    )
    (conversation,) = sessions.conversations["one"]
    (turn,) = conversation.turns
    assert made.output_text == turn.content
    cut = turn.finish_reason == "length"
    assert made.status == ("incomplete" if cut else "completed")
    assert (made.incomplete_details is not None) == cut
    assert [*made.prompt_token_ids, *made.token_ids] == conversation.rows()[0].tokens.tolist()
    assert (made.usage.input_tokens, made.usage.output_tokens) == (turn.prompt_tokens, len(turn.tokens))
    assert len(made.output[0].content[0].logprobs) == len(turn.tokens)
    assert [message["role"] for message in sessions.requests[0].messages] == ["system", "user"]
    assert (made.rft, made.instructions) == ({"session": "one", "turns": [0]}, "Be brief.")


def test_an_agent_goes_on_from_a_response_by_its_id(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    asked = {"model": "tiny", "tools": [TOOL], "max_output_tokens": 16}
    first = client.responses.create(input="Weather?", **asked)
    (call,) = first.output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"Łódź","days":2}')
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(previous_response_id=first.id, input=[answer], **asked)
    assert second.previous_response_id == first.id
    client.responses.create(previous_response_id=second.id, input="Tomorrow?", **asked)
    roles = [message["role"] for message in sessions.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert sessions.requests[-1].messages[2]["name"] == "weather"
    assert len(sessions.conversations["one"]) == 1

    with pytest.raises(openai.BadRequestError) as caught:  # one session never sees another's history
        client.with_options(api_key="two").responses.create(model="tiny", input="?", previous_response_id=first.id)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")
    kept = client.responses.create(input="Weather?", store=False, **asked)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="tiny", input="?", previous_response_id=kept.id)


def test_an_agent_sends_the_output_back_as_input(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    sessions.thinks = True
    items: list = [{"role": "user", "content": [{"type": "input_text", "text": "Hello?"}]}]
    first = client.responses.create(model="tiny", input=items, max_output_tokens=16)
    assert [item.type for item in first.output] == ["reasoning", "message"]
    items += [item.model_dump() for item in first.output] + [{"role": "user", "content": "And?"}]
    second = client.responses.create(model="tiny", input=items, tools=[TOOL], max_output_tokens=16)
    assert [item.type for item in second.output] == ["function_call"]
    items += [item.model_dump() for item in second.output]
    items += [{"type": "function_call_output", "call_id": second.output[0].call_id, "output": "rain"}]
    client.responses.create(model="tiny", input=items, tools=[TOOL], max_output_tokens=16)
    assert sessions.requests[-1].messages[1]["reasoning_content"] == "Let me think.\nYes."
    assert [len(made.turns) for made in sessions.conversations["one"]] == [3]


def test_a_stream_leads_to_the_finished_response(client: openai.OpenAI, sessions: ConversationSessions) -> None:
    sessions.thinks = True
    with client.responses.stream(model="tiny", input="Hello?", max_output_tokens=200, temperature=0) as stream:
        events = list(stream)
    final = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == f"response.{final.status}"
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert (said, thought) == (final.output_text, "Let me think.\nYes.")
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    again = client.with_options(api_key="two").responses.create(
        model="tiny", input="Hello?", max_output_tokens=200, temperature=0
    )
    assert again.output_text == said


def test_a_stream_of_a_call(client: openai.OpenAI) -> None:
    stream = client.responses.create(model="tiny", input="Hello?", tools=[TOOL], max_output_tokens=16, stream=True)
    events = list(stream)
    (done,) = (event for event in events if event.type == "response.function_call_arguments.done")
    said = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert done.arguments == said == '{"city":"Łódź","days":2}'
    assert events[-1].response.output[0].arguments == said


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("background", {"background": True}),
        ("conversation", {"conversation": "conv_1"}),
        ("text.format", {"text": {"format": {"type": "json_object"}}}),
        ("truncation", {"truncation": "auto"}),
        ("include", {"include": ["file_search_call.results"]}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("input[0].type", {"input": [{"type": "item_reference", "id": "x"}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
        ("input", {"input": []}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, param: str, changes: dict) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "tiny", "input": "Hello?"} | changes)
    assert caught.value.param == param


def test_the_store_forgets_the_oldest_and_stays_bounded() -> None:
    store = ResponseStore(max_responses=2, max_chars=1000)
    message = {"role": "user", "content": "x"}
    store.keep("s", "a", [message], None)
    store.keep("s", "b", [message, message], "a")
    assert store.messages("s", "a") == (message,)  # used last, so b goes first
    store.keep("s", "c", [message, message], "a")
    with pytest.raises(RefusedError):
        store.messages("s", "b")
    assert store.messages("s", "a") == (message,)
    store.keep("s", "long", [{"role": "user", "content": "y" * 990}], None)
    for gone in ("a", "c"):
        with pytest.raises(RefusedError):
            store.messages("s", gone)
    assert len(store.messages("s", "long")) == 1
