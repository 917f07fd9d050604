"""Publishes the turns of a session for those who watch it. Nobody waits for them, and nothing is restored from them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from rft.errors import BrokerError, EncodeError
from rft.log.writer import EventWriter
from schemas.sessions import GivenReward, Turn

logger = logging.getLogger(__name__)


class TurnFeed:
    """Is :class:`producers.gateway.journal.Journal` of a session whose rollout is done again if its process dies."""

    def __init__(self, writer: EventWriter, session_id: str) -> None:
        """``writer`` knows the topic `turns`; it is not closed here."""
        self._writer = writer
        self._session_id = session_id

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self._session_id

    async def append(self, turns: Sequence[Turn]) -> None:
        """Publish turns without waiting. One that cannot be published is named in the log and left out."""
        for turn in turns:
            if self._writer.full:
                return  # the broker is away, and the answer must not wait for it
            try:
                self._writer.send("turns", turn, wait=False)
            except (EncodeError, BrokerError) as error:
                logger.warning("turn %d of session %s cannot be published: %s", turn.number, self._session_id, error)

    async def save_rewards(self, rewards: Iterable[GivenReward]) -> None:
        """Return: rewards are published with the experience."""
