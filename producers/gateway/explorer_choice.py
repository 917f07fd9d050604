"""Chooses which explorer generates for a session. Pure: announcements and failures in, choices out.

A session stays on one explorer, which has its tokens in its prefix cache, as long as that one is there. It moves when
the explorer has left, cannot be reached, or has been silent while others have not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

SILENT_S = 15.0
"""An explorer announces itself every 2 s. One that is silent for so long while others are not hangs or is gone."""
SERVING = "serving"
"""Counter of an explorer's announcement: requests of gateways that it generates for now."""
RUNNING = "running"
"""Likewise: rollouts of its own."""


@dataclass(frozen=True, slots=True)
class Explorer:
    """An explorer as it has last announced itself."""

    member_id: str
    url: str
    seen_at: float
    """When the announcement came, in seconds of a clock that never runs backwards."""
    load: float = 0.0
    """What it generates at once, as it says."""


class ExplorerChoice:
    """Knows the explorers and which of them each session uses."""

    def __init__(self) -> None:
        self._explorers: dict[str, Explorer] = {}
        self._of_session: dict[str, str] = {}
        """Explorer by session."""
        self._sessions: Counter[str] = Counter()
        """Number of sessions by explorer."""
        self._asked: Counter[str] = Counter()
        """Requests of ours under way, by explorer."""
        self._newest = 0.0
        """When any explorer was last seen."""

    @property
    def explorers(self) -> Collection[Explorer]:
        """The explorers that are there."""
        return self._explorers.values()

    def announced(self, member_id: str, url: str, stats: Mapping[str, float], now: float) -> None:
        """Note that an explorer is there and holds weights."""
        load = stats.get(SERVING, 0.0) + stats.get(RUNNING, 0.0)
        self._explorers[member_id] = Explorer(member_id, url, now, load)
        self._newest = max(self._newest, now)
        for silent in [one for one in self._explorers.values() if self._newest - one.seen_at > SILENT_S]:
            self.gone(silent.member_id)

    def gone(self, member_id: str) -> None:
        """Note that an explorer has left or cannot be reached. It is back when it announces itself again."""
        self._explorers.pop(member_id, None)

    def is_there(self, explorer: Explorer) -> bool:
        """Return whether this explorer is there, at the same address."""
        known = self._explorers.get(explorer.member_id)
        return known is not None and known.url == explorer.url

    def choose(self, session: str, avoid: Collection[str] = ()) -> Explorer | None:
        """Return the explorer that generates for a session; None if there is none.

        ``avoid`` holds the ids of explorers that have just refused or failed; the session keeps its own all the same.
        """
        kept = self._explorers.get(self._of_session.get(session, ""))
        if kept is not None and kept.member_id not in avoid:
            return kept
        possible = [one for one in self._explorers.values() if one.member_id not in avoid]
        if not possible:
            return None
        chosen = min(possible, key=self._busy)
        if kept is None:
            self._assign(session, chosen.member_id)
        return chosen

    def asked(self, explorer: Explorer) -> None:
        """Note that a request is sent to an explorer. Call ``answered`` when it is over."""
        self._asked[explorer.member_id] += 1

    def answered(self, explorer: Explorer) -> None:
        """Note that a request to an explorer is over."""
        self._asked[explorer.member_id] -= 1
        if not self._asked[explorer.member_id]:
            del self._asked[explorer.member_id]

    def forget(self, session: str) -> None:
        """Note that a session has ended."""
        self._assign(session, None)

    def _busy(self, explorer: Explorer) -> tuple[float, int, str]:
        """Sort by what an explorer generates, then by the sessions that it has."""
        name = explorer.member_id
        return max(explorer.load, self._asked[name]), self._sessions[name], name

    def _assign(self, session: str, member_id: str | None) -> None:
        before = self._of_session.pop(session, None)
        if before is not None:
            self._sessions[before] -= 1
            if not self._sessions[before]:
                del self._sessions[before]
        if member_id is not None:
            self._of_session[session] = member_id
            self._sessions[member_id] += 1
