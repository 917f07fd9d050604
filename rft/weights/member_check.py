"""Checks what a decoded member's announcement says. Pure."""

from __future__ import annotations

from rft.errors import DecodeError
from schemas.events import Member

MAX_RECEIVERS = 65_536
"""Far above the ranks of any policy: a number in a malformed event must not decide how much is remembered."""


def check_member(member: Member) -> None:
    """Check what the schema cannot express. Raises DecodeError."""
    if not 0 <= member.receivers <= MAX_RECEIVERS:
        raise DecodeError(f"is {member.receivers}, allowed: 0 to {MAX_RECEIVERS}", field="receivers")
