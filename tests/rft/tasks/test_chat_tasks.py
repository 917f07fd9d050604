"""With ``tasks.chat``, tasks hold the messages that begin their conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rft.config import TasksConfig
from rft.errors import ConfigError
from rft.tasks.base import make_item
from rft.tasks.chat import task_metadata


def metadata(raw: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(task_metadata(TasksConfig(**settings), make_item(raw, "{question}!", "test")))
    return found


def test_without_chat_the_metadata_stay_as_they_are() -> None:
    assert metadata({"question": "a", "messages": [1], "level": 2}) == {"messages": [1], "level": 2}


def test_the_prompt_becomes_a_users_message_after_the_system_prompt() -> None:
    user = {"role": "user", "content": "a!"}
    assert metadata({"question": "a", "level": 2}, chat=True) == {"level": 2, "chat": {"messages": [user]}}
    system = {"role": "system", "content": "Be brief."}
    assert metadata({"question": "a"}, chat=True, system_prompt="Be brief.")["chat"]["messages"] == [system, user]


def test_a_tasks_own_messages_and_tools_come_first() -> None:
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "b"}]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    found = metadata({"question": "a", "messages": own, "chat": {"tools": tools}}, chat=True, system_prompt="Other.")
    assert found == {"chat": {"messages": own, "tools": tools}}


def test_a_wrong_message_is_named_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"tasks\.chat: the task 'a!': the content of a message of 'user' must be"):
        metadata({"question": "a", "messages": [{"role": "user", "content": 3}]}, chat=True)
