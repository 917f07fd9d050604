"""Writes what passes between an explorer and an environment's process: JSON, one object a line, of bounded size. Pure.

The explorer sends ``open``, then ``reset`` and ``step`` as often as it likes. Each gets one reply. A reply with
``fault`` says what the environment did wrong; its process ends then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rft.environments.base import Step
from rft.texts import utf8_fault
from rft.workers.lines import WireError, encode

MAX_REPLY_BYTES = 1024 * 1024
"""The longest line of an environment. No model reads an observation of that length, and the explorer holds hundreds."""
USER, ROLES = "user", ("system", "user", "assistant", "tool")


def encode_reply(message: Mapping[str, Any]) -> bytes:
    """Return a reply as a line. Raises WireError if it is no plain JSON or too long."""
    line = encode(message)
    if len(line) > MAX_REPLY_BYTES:
        raise WireError(f"takes {len(line):,} bytes, the limit is {MAX_REPLY_BYTES:,}")
    return line


def reset_reply(observation: object) -> dict[str, Any]:
    """Return the reply to ``reset``. Raises WireError if ``observation`` is no observation."""
    return {"messages": as_messages(observation)}


def step_reply(step: object) -> dict[str, Any]:
    """Return the reply to ``step``. Raises WireError if ``step`` is no valid :class:`Step`."""
    if not isinstance(step, Step):
        raise WireError(f"is a {type(step).__name__}, it must be a rft.environments.Step")
    success = _number("success", step.success)
    if success is not None and not 0 <= success <= 1:
        raise WireError(f"has success = {success:g}, it must be 0 to 1")
    if not isinstance(step.info, Mapping):
        raise WireError(f"has an info of type {type(step.info).__name__}, it must be a mapping")
    return {
        "messages": as_messages(step.observation),
        "reward": _number("reward", step.reward),
        "done": bool(step.done),
        "success": success,
        "info": json.loads(json.dumps(dict(step.info), default=str)),
    }


def as_messages(observation: object) -> list[dict[str, Any]]:
    """Return an observation as messages; none if it is empty. Raises WireError."""
    if isinstance(observation, str):
        return [_message({"role": USER, "content": observation})] if observation else []
    if not isinstance(observation, list | tuple):
        raise WireError(f"has an observation of type {type(observation).__name__}, it must be a text or messages")
    return [_message(message) for message in observation]


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise WireError(f"has a message without a role of {', '.join(ROLES)}: {str(message)[:80]!r}")
    content = message.get("content")
    if not isinstance(content, str):
        raise WireError(f"has a message whose content is a {type(content).__name__}, it must be a text")
    if fault := utf8_fault(content):
        raise WireError(f"has an observation that {fault}")
    return dict(message)


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy's numbers are welcome; what is none raises
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"has a {name} of type {type(value).__name__}, it must be a number") from error
    if not math.isfinite(number):
        raise WireError(f"has {name} = {number}, it must be finite")
    return number
