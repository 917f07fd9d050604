"""Gives tasks the chat messages that begin their conversations (``tasks.chat``)."""

from __future__ import annotations

import json
from typing import Any

from rft.config import TasksConfig
from rft.errors import ConfigError, RolloutError
from rft.tasks.base import TaskItem
from rft.workflows.messages import CHAT, check_message


def task_metadata(tasks: TasksConfig, item: TaskItem) -> str:
    """Return the metadata of the task made from ``item``, as JSON.

    With ``tasks.chat`` they hold its messages: the item's own ``messages`` if it has a list of them, otherwise its
    prompt as the user's message; before them the system prompt. Raises ConfigError if a message is none.
    """
    if not tasks.chat:
        return json.dumps(item.metadata)
    own = item.metadata.get("messages")
    messages: list[Any] = list(own) if isinstance(own, list) else [{"role": "user", "content": item.prompt}]
    if tasks.system_prompt is not None and not (messages and _role(messages[0]) == "system"):
        messages.insert(0, {"role": "system", "content": tasks.system_prompt})
    try:
        checked = [check_message(message) for message in messages]
    except RolloutError as error:
        raise ConfigError(f"tasks.chat: the task {item.prompt!r:.80}: {error}") from error
    rest = {key: value for key, value in item.metadata.items() if key != "messages" or not isinstance(own, list)}
    chat = {**(rest.get(CHAT) or {}), "messages": checked}
    return json.dumps({**rest, CHAT: chat})


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None
