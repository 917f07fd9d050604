"""Dead letters: the event as received, with what went wrong and where in its headers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

PREFIX = "rft.error."
VALUE_OMITTED = PREFIX + "value-omitted"
"""Header of a dead letter without its value: with the error's headers it was larger than the broker takes. Its origin
is in the other headers."""
_MAX_MESSAGE_BYTES = 4096


def dead_letter_headers(
    original_headers: Sequence[tuple[str, bytes | None]] | None,
    *,
    stage: str,
    error: BaseException,
    topic: str,
    partition: int,
    offset: int,
    attempt: int = 1,
    first_failure_ms: int,
) -> list[tuple[str, bytes | None]]:
    """The original headers, untouched and first, then ``rft.error.*``: cause, origin, attempt, first failure (Unix ms).

    When a dead letter is sent again and fails again, the newest failure is the last header of each name, and
    ``attempt`` and ``first_failure_ms`` are the caller's to carry over (see :func:`earlier_failure`).
    """
    facts = {
        "stage": stage,
        "class": type(error).__name__,
        "message": str(error).encode("utf-8", "replace")[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore"),
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "attempt": str(attempt),
        "first-failure": str(first_failure_ms),
    }
    return [*(original_headers or ()), *((PREFIX + name, value.encode()) for name, value in facts.items())]


def earlier_failure(headers: Sequence[tuple[str, bytes | None]] | None) -> tuple[int, int] | None:
    """``(attempt, first_failure_ms)`` of an event that was a dead letter before; None for a fresh one."""
    found = {key: value for key, value in headers or () if key.startswith(PREFIX) and value is not None}
    attempt, first = found.get(PREFIX + "attempt"), found.get(PREFIX + "first-failure")
    if attempt is None or first is None or not (attempt.isdigit() and first.isdigit()):
        return None
    return int(attempt), int(first)
