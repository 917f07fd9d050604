"""Reads requests of OpenAI's Chat Completions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from producers.gateway.contract import ChatRequest
from producers.gateway.fields import Fields
from producers.gateway.history import (
    MAX_CALLS,
    MAX_MESSAGES,
    MAX_TOOLS,
    NO_EFFECT,
    History,
    call,
    check_tools,
    parse_arguments,
    parse_text_parts,
    tool_name,
    tool_schema,
)
from rft.policy.base import MAX_STOP_CHARS, MAX_STOPS

MAX_CHOICES = 128
MAX_TOKENS = 10_000_000
"""The largest ``max_tokens``; the context of the model ends a turn long before."""
KNOWN = (
    *("messages", "model", "tools", "tool_choice", "max_tokens", "max_completion_tokens", "temperature", "top_p"),
    *("stop", "n", "logprobs", "stream", "stream_options", "return_token_ids"),
)
UNUSED = (
    *("user", "metadata", "store", "service_tier", "seed", "reasoning_effort", "verbosity", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
)
NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "repetition_penalty": (1,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    **dict.fromkeys(("audio", "prediction", "web_search_options", "functions", "function_call", "moderation"), ()),
}
ECHOED = ("refusal", "annotations", "audio", "function_call", "tool_calls", "tool_call_id", "reasoning_content")
"""Fields of an answer's message that clients send back, whatever the role."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How the answer is written; nothing that the sessions need."""

    stream: bool
    include_usage: bool
    logprobs: bool
    token_ids: bool
    model: str


def parse_chat(values: dict[str, Any]) -> tuple[ChatRequest, ChatOptions]:
    """Return what a body asks for. Raises RefusedError that names the field at fault."""
    body = Fields(values)
    body.only(KNOWN, unused=UNUSED, neutral=NEUTRAL)
    history = History()
    for message in body.objects("messages", MAX_MESSAGES):
        _add_message(history, message)
    choice = _tool_choice(body)
    limits = [body.whole(name, 1, MAX_TOKENS) for name in ("max_completion_tokens", "max_tokens")]
    tools = check_tools([_tool(tool) for tool in body.objects("tools", MAX_TOOLS)], choice, "tool_choice")
    streaming = body.object("stream_options")
    request = ChatRequest(
        messages=history.done("messages"),
        model=body.text("model", ""),
        tools=tools,
        tool_choice=choice,
        max_tokens=limits[0] if limits[0] is not None else limits[1],
        temperature=body.number("temperature", 0, 2),
        top_p=parse_top_p(body),
        stop=parse_stop(body, "stop"),
        n=body.whole("n", 1, MAX_CHOICES) or 1,
    )
    return request, ChatOptions(
        stream=body.flag("stream"),
        include_usage=streaming is not None and streaming.flag("include_usage"),
        logprobs=body.flag("logprobs"),
        token_ids=body.flag("return_token_ids"),
        model=request.model,
    )


def parse_stop(body: Fields, name: str) -> tuple[str, ...]:
    """Return the texts at which a turn ends: a text, or an array of them."""
    value = body.values.get(name)
    given = [(value, body.at(name))] if isinstance(value, str) else body.items(name, MAX_STOPS)
    for stop, _ in given:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            raise body.refuse(name, f"must hold texts of 1 to {MAX_STOP_CHARS} characters")
    return tuple(dict.fromkeys(stop for stop, _ in given))


def parse_top_p(body: Fields) -> float | None:
    """Return ``top_p``: above 0 and at most 1."""
    top_p = body.number("top_p", 0, 1)
    if top_p == 0:
        raise body.refuse("top_p", "must be above 0; use temperature 0 for greedy decoding")
    return top_p


def _add_message(history: History, message: Fields) -> None:
    role = message.text("role", choices=("system", "developer", "user", "assistant", "tool"))
    message.only(("role", "content", "name", *ECHOED), unused=NO_EFFECT)
    if role != "assistant" and message.values.get("tool_calls"):
        raise message.refuse("tool_calls", f"cannot belong to a message of {role!r}")
    if message.values.get("function_call"):
        raise message.refuse("function_call", "is not supported by this gateway; use tool_calls")
    content = parse_text_parts(message, "content", ("text",))
    if role == "assistant":
        calls = [_call(item) for item in message.objects("tool_calls", MAX_CALLS)]
        thinking = message.text("reasoning_content", "")
        history.add_assistant(content, calls, thinking=thinking, name=message.text("name", ""))
        return
    if not message.has("content"):
        raise message.refuse("content", "must be a text or an array of text parts")
    if role == "tool":
        history.add_tool(message.text("tool_call_id"), content)
    else:
        history.add("system" if role == "developer" else role, content, name=message.text("name", ""))


def _call(item: Fields) -> dict[str, Any]:
    item.only(("id", "type", "function", "index"))
    item.text("type", "function", choices=("function",))
    function = item.object("function")
    if function is None:
        raise item.refuse("function", "must be an object, found nothing")
    return call(item.text("id"), function.text("name"), parse_arguments(function))


def _tool(tool: Fields) -> dict[str, Any]:
    tool.text("type", choices=("function",))
    tool.only(("type", "function"), unused=NO_EFFECT)
    function = tool.object("function")
    if function is None:
        raise tool.refuse("function", "must be an object, found nothing")
    function.only(("name", "description", "parameters"), unused=("strict",))
    return tool_schema(function, "parameters")


def _tool_choice(body: Fields) -> str:
    value = body.values.get("tool_choice")
    if value is None or isinstance(value, str):
        return body.text("tool_choice", "auto", choices=("auto", "none", "required"))
    choice = Fields(value, "tool_choice")
    choice.text("type", choices=("function",))
    function = choice.object("function")
    if function is None:
        raise choice.refuse("function", "must name a function")
    return tool_name(function)
