"""Reads requests of Anthropic's Messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from producers.gateway.chat import MAX_TOKENS, parse_stop, parse_top_p
from producers.gateway.contract import ChatRequest
from producers.gateway.faults import RefusedError
from producers.gateway.fields import Fields
from producers.gateway.history import (
    BETWEEN_PARTS,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_TOOLS,
    NO_EFFECT,
    History,
    call,
    check_tools,
    parse_text_parts,
    tool_name,
    tool_schema,
)

KNOWN = (
    *("messages", "model", "max_tokens", "system", "tools", "tool_choice", "temperature", "top_p", "stop_sequences"),
    *("stream", "return_token_ids", "output_config"),
)
UNUSED = (
    *("metadata", "thinking", "service_tier", "speed", "inference_geo", "diagnostics", "user_profile_id"),
    *("workspace_id", "context_management", *NO_EFFECT),
)
NEUTRAL: dict[str, tuple[object, ...]] = dict.fromkeys(("top_k", "container", "mcp_servers"), ())
TEXTS = ("text",)


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """How the answer is written; nothing that the sessions need."""

    stream: bool
    token_ids: bool


def parse_messages(values: dict[str, Any], *, counting: bool = False) -> tuple[ChatRequest, MessageOptions]:
    """Return what a body asks for. Raises RefusedError that names the field at fault.

    ``counting``: the body only asks how many tokens it has, so it needs no ``max_tokens``.
    """
    body = Fields(values)
    body.only(KNOWN, unused=UNUSED, neutral=NEUTRAL)
    if output := body.object("output_config"):
        output.only((), unused=("effort",))
    if not counting and not body.has("max_tokens"):
        raise body.refuse("max_tokens", "must be a whole number, found nothing")
    history = History()
    if system := parse_text_parts(body, "system", TEXTS):
        history.add("system", system)
    for message in body.objects("messages", MAX_MESSAGES):
        _add_message(history, message)
    messages = history.done("messages")
    if messages[-1]["role"] == "assistant":
        raise RefusedError(
            "messages", "ends with the assistant; this gateway does not continue a text, the model writes whole turns"
        )
    choice = _tool_choice(body)
    request = ChatRequest(
        messages=messages,
        model=body.text("model", ""),
        tools=check_tools([_tool(tool) for tool in body.objects("tools", MAX_TOOLS)], choice, "tool_choice"),
        tool_choice=choice,
        max_tokens=body.whole("max_tokens", 1, MAX_TOKENS),
        temperature=body.number("temperature", 0, 2),
        top_p=parse_top_p(body),
        stop=parse_stop(body, "stop_sequences"),
    )
    return request, MessageOptions(stream=body.flag("stream"), token_ids=body.flag("return_token_ids"))


def _add_message(history: History, message: Fields) -> None:
    message.only(("role", "content"), unused=NO_EFFECT)
    role = message.text("role", choices=("user", "assistant", "system"))
    content = message.values.get("content")
    if not isinstance(content, str | list):
        raise message.refuse("content", "must be a text or an array of blocks")
    if role == "system":
        history.add("system", parse_text_parts(message, "content", TEXTS))
    elif isinstance(content, str):
        history.add("user", content) if role == "user" else history.add_assistant(content)
    elif role == "user":
        _add_user(history, message.objects("content", MAX_PARTS))
    else:
        _add_assistant(history, message.objects("content", MAX_PARTS))


def _add_user(history: History, blocks: list[Fields]) -> None:
    """Append the answers of tools as messages of their own, and the texts before, between and after them."""
    texts: list[str] = []

    def say() -> None:
        if texts:
            history.add("user", BETWEEN_PARTS.join(texts))
            texts.clear()

    for block in blocks:
        kind = block.text("type")
        if kind == "text":
            texts.append(_text(block))
        elif kind == "tool_result":
            say()
            block.only(("type", "tool_use_id", "content"), unused=("is_error", "toolset_name", *NO_EFFECT))
            history.add_tool(block.text("tool_use_id"), parse_text_parts(block, "content", TEXTS))
        else:
            raise block.refuse("type", f"is {kind[:80]!r}; this gateway takes text and tool_result blocks of a user")
    say()


def _add_assistant(history: History, blocks: list[Fields]) -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.text("type")
        if kind == "text":
            texts.append(_text(block))
        elif kind == "thinking":
            block.only(("type", "thinking"), unused=("signature", *NO_EFFECT))
            thoughts.append(block.text("thinking"))
        elif kind == "tool_use":
            block.only(("type", "id", "name", "input"), unused=("caller", "toolset_name", *NO_EFFECT))
            given = block.object("input")
            calls.append(call(block.text("id"), block.text("name"), given.values if given else {}))
        else:
            raise block.refuse(
                "type", f"is {kind[:80]!r}; this gateway takes text, thinking and tool_use blocks of an assistant"
            )
    history.add_assistant(BETWEEN_PARTS.join(texts), calls, thinking=BETWEEN_PARTS.join(thoughts))


def _text(block: Fields) -> str:
    block.only(("type", "text"), unused=("citations", *NO_EFFECT))
    return block.text("text")


def _tool(tool: Fields) -> dict[str, Any]:
    kind = tool.text("type", "custom")
    if kind != "custom":
        raise tool.refuse("type", f"is {kind[:80]!r}; this gateway runs no tools itself, use 'custom'")
    unused = ("strict", "input_examples", "eager_input_streaming", "defer_loading", "allowed_callers", *NO_EFFECT)
    tool.only(("type", "name", "description", "input_schema"), unused=unused)
    return tool_schema(tool, "input_schema")


def _tool_choice(body: Fields) -> str:
    choice = body.object("tool_choice")
    if choice is None:
        return "auto"
    kind = choice.text("type", choices=("auto", "any", "none", "tool"))
    if choice.flag("disable_parallel_tool_use"):
        raise choice.refuse("disable_parallel_tool_use", "is not supported by this gateway; leave it out")
    if kind == "tool":
        return tool_name(choice)
    return "required" if kind == "any" else kind
