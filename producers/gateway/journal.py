"""Defines how a session writes itself to the log while it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from schemas.sessions import GivenReward, Turn


class Journal(Protocol):
    """Writes what happens in one session. A coroutine returns when what it was given is on the log.

    Raises RequestError if a turn is larger than an event may be, BrokerError if the broker refuses it.
    """

    @property
    def session_id(self) -> str:
        """The session's name."""
        ...

    async def append(self, turns: Sequence[Turn]) -> None:
        """Write the turns that answer one request. They count if this returns. If it is canceled or raises, none does,
        unless the process ends before the session is written again."""
        ...

    async def save_rewards(self, rewards: Iterable[GivenReward]) -> None:
        """Write the newest revision of each reward that was sent to the session."""
        ...
