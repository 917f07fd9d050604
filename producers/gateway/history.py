"""Builds messages in the canonical form of :mod:`producers.gateway.contract`, whatever protocol they came by. Pure."""

from __future__ import annotations

import re
from typing import Any

from producers.gateway.faults import RefusedError
from producers.gateway.fields import Fields
from producers.gateway.json_body import parse_object
from rft.workflows.messages import Message

MAX_MESSAGES = 10_000
MAX_PARTS = 10_000
MAX_TOOLS = 512
MAX_CALLS = 512
TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
BETWEEN_PARTS = "\n"
"""Stands between the text parts of one message."""
NO_EFFECT = ("cache_control", "prompt_cache_breakpoint")
"""Fields of parts, messages and tools that only concern the caches of other servers."""


class History:
    """Collects messages in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._names: dict[str, str] = {}

    def add(self, role: str, content: str, *, name: str = "") -> None:
        """Append a message of the system or of the user."""
        self.messages.append({"role": role, "content": content} | ({"name": name} if name else {}))

    def add_assistant(
        self, content: str, calls: list[dict[str, Any]] | None = None, *, thinking: str = "", name: str = ""
    ) -> None:
        """Append what the model said earlier."""
        message: Message = {"role": "assistant", "content": content}
        if calls:
            message["tool_calls"] = calls
            self._names |= {call["id"]: call["function"]["name"] for call in calls}
        if thinking:
            message["reasoning_content"] = thinking
        if name:
            message["name"] = name
        self.messages.append(message)

    def add_tool(self, call_id: str, content: str) -> None:
        """Append the answer to a call, with the name of the function if the call is known."""
        message: Message = {"role": "tool", "tool_call_id": call_id, "content": content}
        if name := self._names.get(call_id):
            message["name"] = name
        self.messages.append(message)

    def extend(self, messages: tuple[Message, ...]) -> None:
        """Append messages that are canonical."""
        for message in messages:
            self.messages.append(message)
            self._names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}

    def done(self, param: str) -> tuple[Message, ...]:
        """Return the messages. Raises RefusedError that names ``param`` if there are none, or too many."""
        if not self.messages:
            raise RefusedError(param, "must hold at least one message")
        if len(self.messages) > MAX_MESSAGES:
            raise RefusedError(param, f"the history has more than {MAX_MESSAGES} messages")
        return tuple(self.messages)


def call(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call as an element of ``tool_calls``. Its name is what the model wrote: there may be no such tool."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def parse_arguments(fields: Fields, name: str = "arguments") -> dict[str, Any]:
    """Return the arguments of a call from the JSON text in field ``name``. An empty text means no arguments."""
    text = fields.text(name)
    if not text.strip():
        return {}
    try:
        return parse_object(text.encode(), f"the text of {name}")
    except RefusedError as error:
        raise fields.refuse(name, str(error)) from error


def parse_text_parts(fields: Fields, name: str, types: tuple[str, ...]) -> str:
    """Return the text of a content field: a text itself, or an array of text parts; empty if it is absent."""
    value = fields.values.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    texts = []
    for part in fields.objects(name, MAX_PARTS):
        found = part.text("type")
        if found not in types:
            raise part.refuse("type", f"is {found[:80]!r}; this gateway takes texts only ({', '.join(types)})")
        part.only(("type", "text"), unused=(*NO_EFFECT, "annotations", "citations", "logprobs"))
        texts.append(part.text("text"))
    return BETWEEN_PARTS.join(texts)


def tool_name(fields: Fields, name: str = "name") -> str:
    """Return the name of a function."""
    text = fields.text(name)
    if not TOOL_NAME.fullmatch(text):
        raise fields.refuse(name, "must have 1 to 128 of the characters A-Z a-z 0-9 _ . : -")
    return text


def tool_schema(fields: Fields, parameters: str) -> dict[str, Any]:
    """Return OpenAI's schema of the function that ``fields`` describes, its parameters in the field of that name."""
    schema: dict[str, Any] = {"name": tool_name(fields)}
    if fields.has("description"):
        schema["description"] = fields.text("description")
    given = fields.object(parameters)
    schema["parameters"] = given.values if given else {"type": "object", "properties": {}}
    return {"type": "function", "function": schema}


def check_tools(tools: list[dict[str, Any]], choice: str, choice_path: str) -> tuple[dict[str, Any], ...]:
    """Return the tools. Raises RefusedError if two have one name, or ``choice`` needs one that is not there."""
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise RefusedError("tools", f"holds {double!r} twice")
    if choice == "required" and not tools:
        raise RefusedError(choice_path, "asks for a call, but there are no tools")
    if choice not in ("auto", "none", "required", *names):
        raise RefusedError(choice_path, f"names the function {choice[:80]!r}, which is not among the tools")
    return tuple(tools)
