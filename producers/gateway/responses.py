"""Reads requests of OpenAI's Responses. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from producers.gateway.chat import MAX_TOKENS, parse_top_p
from producers.gateway.contract import ChatRequest
from producers.gateway.fields import Fields
from producers.gateway.history import (
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
from rft.workflows.messages import Message

KNOWN = (
    *("input", "instructions", "model", "tools", "tool_choice", "max_output_tokens", "temperature", "top_p", "stream"),
    *("previous_response_id", "store", "include", "return_token_ids"),
)
UNUSED = (
    *("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "reasoning", "stream_options"),
)
NEUTRAL: dict[str, tuple[object, ...]] = {
    "background": (False,),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "parallel_tool_calls": (True,),
    **dict.fromkeys(("conversation", "prompt", "max_tool_calls", "moderation", "context_management"), ()),
}
LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (LOGPROBS, "reasoning.encrypted_content")
"""What ``include`` may name. Thinking is never encrypted here, so the second one adds nothing."""
TEXT_PARTS = ("input_text", "output_text", "text")


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How the answer is written and what of the request it repeats; nothing that the sessions need."""

    stream: bool
    store: bool
    logprobs: bool
    token_ids: bool
    previous: str | None
    """The response that this one continues."""
    history: tuple[Message, ...]
    """All messages but the instructions, which count for one response only."""
    body: dict[str, Any]


def previous_id(values: dict[str, Any]) -> str | None:
    """Return the id of the response that a body continues, None if it begins a conversation."""
    return Fields(values).text("previous_response_id", "") or None


def parse_response(values: dict[str, Any], before: tuple[Message, ...]) -> tuple[ChatRequest, ResponseOptions]:
    """Return what a body asks for. Raises RefusedError that names the field at fault.

    Args:
        values: the body.
        before: the messages of the response that it continues, its output included.
    """
    body = Fields(values)
    body.only((*KNOWN, "text"), unused=UNUSED, neutral=NEUTRAL)
    if text := body.object("text"):
        text.only((), unused=("verbosity",), neutral={"format": ({"type": "text"},)})
    include = body.items("include", len(INCLUDABLE))
    for name, path in include:
        if name not in INCLUDABLE:
            raise body.refuse("include", f"names {str(name)[:80]!r} in {path}; allowed: {', '.join(INCLUDABLE)}")
    choice = _tool_choice(body)
    tools = check_tools([_tool(tool) for tool in body.objects("tools", MAX_TOOLS)], choice, "tool_choice")
    history = _parse_input(body, before)
    instructions = body.text("instructions", "")
    request = ChatRequest(
        messages=(*([{"role": "system", "content": instructions}] if instructions else []), *history),
        model=body.text("model", ""),
        tools=tools,
        tool_choice=choice,
        max_tokens=body.whole("max_output_tokens", 1, MAX_TOKENS),
        temperature=body.number("temperature", 0, 2),
        top_p=parse_top_p(body),
    )
    return request, ResponseOptions(
        stream=body.flag("stream"),
        store=body.flag("store", default=True),
        logprobs=any(name == LOGPROBS for name, _ in include),
        token_ids=body.flag("return_token_ids"),
        previous=previous_id(values),
        history=history,
        body=values,
    )


def _parse_input(body: Fields, before: tuple[Message, ...]) -> tuple[Message, ...]:
    history = History()
    history.extend(before)
    if isinstance(body.values.get("input"), str):
        history.add("user", body.text("input"))
        return history.done("input")
    turn = _OpenTurn(history)
    for item in body.objects("input", MAX_MESSAGES):
        kind = item.text("type", "message")
        if kind == "message":
            _add_message(history, turn, item)
        elif kind == "function_call":
            item.only(("type", "id", "call_id", "name", "arguments", "status"), unused=("caller",))
            turn.add_call(call(item.text("call_id"), item.text("name"), parse_arguments(item)))
        elif kind == "reasoning":
            turn.think(_thinking(item))
        elif kind == "function_call_output":
            turn.end()
            item.only(("type", "id", "call_id", "output", "status"), unused=("caller",))
            if not item.has("output"):
                raise item.refuse("output", "must be a text or an array of text parts")
            history.add_tool(item.text("call_id"), parse_text_parts(item, "output", TEXT_PARTS))
        else:
            raise item.refuse("type", f"{kind[:80]!r} is not supported by this gateway")
    turn.end()
    return history.done("input")


class _OpenTurn:
    """Joins the items of one turn of the model (thinking, text, calls) into one message."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._parts: tuple[str, str | None, list[dict[str, Any]]] = ("", None, [])

    def think(self, text: str) -> None:
        self.end()
        self._parts = (text, None, [])

    def say(self, text: str) -> None:
        thinking, content, calls = self._parts
        if content is not None or calls:
            self.end()
            thinking = ""
        self._parts = (thinking, text, [])

    def add_call(self, made: dict[str, Any]) -> None:
        self._parts[2].append(made)

    def end(self) -> None:
        """Append the message if there is anything in it."""
        thinking, content, calls = self._parts
        if thinking or content is not None or calls:
            self._history.add_assistant(content or "", calls, thinking=thinking)
        self._parts = ("", None, [])


def _add_message(history: History, turn: _OpenTurn, item: Fields) -> None:
    item.only(("type", "role", "content", "id", "status"), unused=("phase", *NO_EFFECT))
    role = item.text("role", choices=("system", "developer", "user", "assistant"))
    if not item.has("content"):
        raise item.refuse("content", "must be a text or an array of text parts")
    content = parse_text_parts(item, "content", TEXT_PARTS)
    if role == "assistant":
        turn.say(content)
    else:
        turn.end()
        history.add("system" if role == "developer" else role, content)


def _thinking(item: Fields) -> str:
    item.only(("type", "id", "content", "summary", "status"), unused=("encrypted_content",))
    text = parse_text_parts(item, "content", ("reasoning_text",))
    return text or parse_text_parts(item, "summary", ("summary_text",))


def _tool(tool: Fields) -> dict[str, Any]:
    kind = tool.text("type")
    if kind != "function":
        raise tool.refuse("type", f"is {kind[:80]!r}; this gateway runs no tools itself, use 'function'")
    tool.only(("type", "name", "description", "parameters"), unused=("strict", "defer_loading"))
    return tool_schema(tool, "parameters")


def _tool_choice(body: Fields) -> str:
    value = body.values.get("tool_choice")
    if value is None or isinstance(value, str):
        return body.text("tool_choice", "auto", choices=("auto", "none", "required"))
    choice = Fields(value, "tool_choice")
    choice.text("type", choices=("function",))
    return tool_name(choice)
