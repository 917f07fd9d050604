"""Checks whether a decoded task can be rolled out. Pure."""

from __future__ import annotations

import json

from rft.config import Config
from rft.errors import DecodeError
from rft.log.events import Event
from rft.log.record_checks import check_group_id
from schemas.events import Task

MAX_SAMPLES = 65_536
"""Samples of one task; processors accept no larger group."""
MAX_TOKENS = 2**24
EXPERIENCE_BYTES = 4096
"""What an experience without tokens adds to its task, at most. A failed rollout must fit into an event, too."""


def check_task(task: Task) -> None:
    """Check what the schema cannot express. Raises DecodeError that names the invalid field."""
    check_group_id(task.group_id)
    _check_range("samples", task.samples, 1, MAX_SAMPLES)
    _check_range("spare", task.spare, 0, MAX_SAMPLES - task.samples)
    _check_range("max_tokens", task.max_tokens, 1, MAX_TOKENS)
    if not task.temperature >= 0:
        raise DecodeError(f"is {task.temperature:g}, allowed: 0 or more", field="temperature")
    if not 0 < task.top_p <= 1:
        raise DecodeError(f"is {task.top_p:g}, allowed: above 0, up to 1", field="top_p")
    if not _is_object(task.metadata):
        raise DecodeError("is no JSON object", field="metadata")


def check_size(event: Event, config: Config) -> None:
    """Check that the experiences of a task can be published. Raises DecodeError."""
    limit = config.log.max_message_bytes - min(EXPERIENCE_BYTES, config.log.max_message_bytes // 4)
    size = len(event.value or b"")
    if size > limit:
        raise DecodeError(
            f"{size} bytes; at most {limit} are accepted, so that its experiences fit into log.max_message_bytes"
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise DecodeError(f"is {value}, allowed: {least} to {most}", field=field)
