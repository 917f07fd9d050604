"""Defines what is kept of a session that an agent opened: while it is open, and after its end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from producers.gateway.session import Session
from producers.gateway.session_groups import SessionPlace, place_of
from producers.gateway.session_store import SessionJournal
from schemas.events import Task


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that takes no more requests."""

    place: SessionPlace
    turns: tuple[int, ...]
    """Numbers of its turns."""
    experiences: tuple[str, ...]
    """Ids of what was published."""

    def describe(self) -> dict[str, Any]:
        """Return what agents see of it, as JSON."""
        return {
            "state": "ended",
            "turns": len(self.turns),
            "group_id": self.place.group_id,
            "experiences": list(self.experiences),
        }

    def metadata(self) -> str:
        """Return what the log keeps of it."""
        return json.dumps({"turns": list(self.turns), "experiences": list(self.experiences)})


@dataclass(slots=True, eq=False)
class OpenedSession:
    """A session that takes requests, or is about to end."""

    name: str
    session: Session
    task: Task
    place: SessionPlace
    journal: SessionJournal | None
    opened_at: float
    """Unix time in s."""
    used_at: float
    """When it was last asked for something, in seconds of a clock that never runs backwards."""
    ending: asyncio.Task[EndedSession] | None = None

    def is_idle(self, since: float) -> bool:
        """Return whether nobody has asked it for anything since then."""
        return self.used_at < since and not self.session.under_way and self.ending is None


def read_ended(name: str, metadata: str) -> EndedSession:
    """Return an ended session as the log keeps it."""
    try:
        kept = json.loads(metadata)
        return EndedSession(place_of(name), tuple(map(int, kept["turns"])), tuple(map(str, kept["experiences"])))
    except (ValueError, KeyError, TypeError):
        return EndedSession(place_of(name), (), ())
