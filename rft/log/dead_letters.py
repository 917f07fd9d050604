"""Builds the headers of dead letters: events that could not be processed, kept as they came, with the cause. Pure.

:meth:`rft.log.writer.EventWriter.publish_dead_letter` publishes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Stage = Literal["decode", "validate", "score", "reward", "process"]
"""What a role was doing with the event when it failed; travels as ``rft.error.stage``.

``decode``: read it as a record, whichever role did. ``validate``: check the record's values. ``score``: run a reward
function. ``reward``: wait for its external rewards, which did not come in time. ``process``: anything else; a fault
of ours.
"""
EARLIER_STAGES = {"train": "decode", "explorer": "decode"}
"""What earlier releases wrote when a trainer or explorer could not decode an event."""
PREFIX = "rft.error."
VALUE_OMITTED = PREFIX + "value-omitted"
"""Header of a dead letter without its value: with the error's headers it was larger than the broker takes. The other
headers name its origin; the number is its size in bytes."""
CONNECT_PREFIX = "__connect.errors."
"""Of the headers by which Kafka Connect names errors: tools for its dead letters show ours as well."""
_CONNECT_STAGES: dict[Stage, str] = {
    "decode": "VALUE_CONVERTER",
    "validate": "TRANSFORMATION",
    "score": "TRANSFORMATION",
    "reward": "TASK_PUT",
    "process": "TASK_PUT",
}
_MAX_MESSAGE_BYTES = 4096


def dead_letter_headers(
    original_headers: Sequence[tuple[str, bytes | None]] | None,
    *,
    stage: Stage,
    error: BaseException,
    topic: str,
    partition: int,
    offset: int,
    now_ms: int,
) -> list[tuple[str, bytes | None]]:
    """Return the original headers, untouched and first, then ``rft.error.*``: cause, origin, attempt, first failure.
    Kafka Connect's names for the same facts follow.

    If a dead letter was sent again and fails again, the newest failure is the last header of each name. It counts one
    attempt more and keeps the time of the first failure. ``now_ms`` is Unix time.
    """
    attempt, first_failure_ms = earlier_failure(original_headers) or (0, now_ms)
    message = str(error).encode("utf-8", "replace")[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
    facts = {
        "stage": stage,
        "class": type(error).__name__,
        "message": message,
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "attempt": str(attempt + 1),
        "first-failure": str(first_failure_ms),
    }
    for_connect = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "connector.name": "stream-rft",
        "stage": _CONNECT_STAGES.get(stage, "TASK_PUT"),
        "exception.class.name": f"{type(error).__module__}.{type(error).__qualname__}",
        "exception.message": message,
    }
    return [
        *(original_headers or ()),
        *((PREFIX + name, value.encode()) for name, value in facts.items()),
        *((CONNECT_PREFIX + name, value.encode()) for name, value in for_connect.items()),
    ]


def without_failure(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers without ours.

    Connect's names are ours only behind our own: an event that Kafka Connect has set aside before has them, too.
    """
    own, ours = [], False
    for name, value in headers:
        ours = ours or name.startswith(PREFIX)
        if not name.startswith(PREFIX) and not (ours and name.startswith(CONNECT_PREFIX)):
            own.append((name, value))
    return own


def earlier_failure(headers: Sequence[tuple[str, bytes | None]] | None) -> tuple[int, int] | None:
    """Return ``(attempt, first_failure_ms)`` of an event that was a dead letter before; None for any other event."""
    found = {key: value for key, value in headers or () if key.startswith(PREFIX) and value is not None}
    attempt, first = found.get(PREFIX + "attempt"), found.get(PREFIX + "first-failure")
    if attempt is None or first is None:
        return None
    counts = parse_number(attempt.decode("ascii", "replace")), parse_number(first.decode("ascii", "replace"))
    return None if counts[0] is None or counts[1] is None else (counts[0], counts[1])


def parse_number(text: str) -> int | None:
    """Parse a number of a header, which anyone may have written; None if it is none of at most 18 digits."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None
