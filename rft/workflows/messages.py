"""Defines chat messages as workflows see them, and what is found in the text that a model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rft.errors import RolloutError
from rft.texts import utf8_fault
from schemas.events import Task

Message = dict[str, Any]
"""A message in OpenAI's chat format: ``role``, ``content``, and what belongs to its role, such as ``tool_calls``."""

CHAT = "chat"
"""Key of a task's metadata: ``messages`` that begin its conversation, and perhaps ``tools``."""
ASSISTANT = "assistant"
THINK, END_THINK = "<think>", "</think>"
MAX_MESSAGE_CHARS = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def message_part(self) -> dict[str, Any]:
        """The call as an entry of a message's ``tool_calls``."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a turn says, taken apart."""

    content: str
    """The text without thinking and without tool calls."""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    faults: tuple[str, ...] = field(default=())
    """Why calls could not be read, in words for the model."""

    @property
    def message(self) -> Message:
        """The reply as a message, as a client of OpenAI's API sees it."""
        message: Message = {"role": ASSISTANT, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.message_part for call in self.tool_calls]
        return message


ParseReply = Callable[[str], Reply]
"""Takes a turn's text apart. It never raises."""


def plain_reply(text: str) -> Reply:
    """Return the reply that a text without tool calls is: thinking, if there is any, and content."""
    thinking, content = split_thinking(text)
    return Reply(content, thinking)


def split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking and the rest of a text.

    The template may have opened the block, so that only its end is there. Thinking that was not ended (at a token
    limit) is all thinking.
    """
    before, end, after = text.rpartition(END_THINK)
    if end:
        return before.replace(THINK, "", 1).strip(), after.lstrip("\n")
    if text.lstrip().startswith(THINK):
        return text.replace(THINK, "", 1).strip(), ""
    return "", text


def check_message(message: object) -> Message:
    """Return a copy of a message. Raises RolloutError that says what is wrong with it."""
    if not isinstance(message, Mapping):
        raise RolloutError(f"a message must be a mapping with role and content, found {type(message).__name__}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RolloutError(f"a message needs a role, such as 'user'; found {message!r:.200}")
    if content is None and message.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RolloutError(f"the content of a message of {role!r:.80} must be a text, found {type(content).__name__}")
    if len(content) > MAX_MESSAGE_CHARS:
        raise RolloutError(
            f"a message of {role!r:.80} has {len(content)} characters, at most {MAX_MESSAGE_CHARS} may be"
        )
    if fault := utf8_fault(content) or utf8_fault(role):
        raise RolloutError(f"a message of {role!r:.80} {fault}")
    return {**message, "content": content}


def chat_of(task: Task) -> dict[str, Any]:
    """Return ``chat`` of a task's metadata; empty if there is none. Raises RolloutError if it is malformed."""
    chat = json.loads(task.metadata).get(CHAT)
    if chat is None:
        return {}
    if not isinstance(chat, dict) or not all(isinstance(chat.get(key) or [], list) for key in ("messages", "tools")):
        raise RolloutError("the task's metadata 'chat' must be an object with lists 'messages' and 'tools'")
    return chat
