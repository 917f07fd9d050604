"""Ends sessions that agents opened: their rows go to the log, and then the note that they have ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from producers.gateway.agent_session import EndedSession, OpenedSession
from producers.gateway.contract import SessionEndedError, SessionReward
from producers.gateway.event_publisher import Publisher
from producers.gateway.session_experiences import RewardNames, Stamp, experiences_of
from rft.config import Config
from rft.errors import RequestError, RolloutError
from rft.workflows.rollout import Outcome
from schemas.events import Experience, Task

log = logging.getLogger("rft")


class SessionEnding:
    """Publishes what sessions give."""

    def __init__(
        self,
        config: Config,
        publisher: Publisher,
        source: str,
        ended: Callable[[OpenedSession, EndedSession], None],
    ) -> None:
        """Begin.

        Args:
            config: The configuration.
            publisher: Puts experiences and rewards on the log.
            source: Our name in them.
            ended: Is called for each session that has ended.
        """
        self._publisher = publisher
        self._source = source
        self._ended = ended
        self._model = config.trainer.model_key
        self._names = RewardNames(config)
        self.published = 0
        """Experiences that were published."""
        self.error: Exception | None = None
        """Why nothing can be published any more."""

    async def end(self, opened: OpenedSession) -> EndedSession:
        """End a session once, however many ask for it and whether or not they stay."""
        if opened.ending is None:
            opened.ending = asyncio.create_task(self._publish(opened))
        return await asyncio.shield(opened.ending)

    async def reward(self, ended: EndedSession, reward: SessionReward) -> None:
        """Publish a reward for a session that has ended. Raises SessionEndedError if there is nothing to reward."""
        if not ended.experiences:
            raise SessionEndedError("the session ended without a turn, so there is nothing to reward")
        events = self._names.events(ended.place, reward, int(time.time() * 1000), ended.turns)
        await asyncio.gather(*(self._publisher.publish("rewards", event) for event in events))

    async def _publish(self, opened: OpenedSession) -> EndedSession:
        session, task, place = opened.session, opened.task, opened.place
        await session.end()
        now = time.time()
        stamp = Stamp(self._source, self._model, int(now * 1000), int((now - opened.opened_at) * 1000))
        rollout = session.rollout(Outcome(), cut=session.cut)
        rows = experiences_of(task, place.sample, rollout, self._names, stamp)
        turns = sorted({turn for row in rollout.turns_of_rows for turn in row})
        try:
            rows = await self._on_the_log(task, place.sample, rows, stamp)
            ended = EndedSession(place, tuple(turns), tuple(row.experience_id for row in rows))
            if opened.journal is not None:
                await opened.journal.save_metadata(ended.metadata())
                await opened.journal.end()
        # Nothing may be lost silently: the role ends, and says why.
        except Exception as error:
            self.error = error
            raise
        self.published += len(rows)
        self._ended(opened, ended)
        return ended

    async def _on_the_log(self, task: Task, sample: int, rows: list[Experience], stamp: Stamp) -> list[Experience]:
        """Publish rows; if they cannot be encoded or are too large, publish that the session failed."""
        try:
            await self._send(rows)
        except RequestError as error:
            log.warning("session %s cannot be published: %s", rows[0].sample_id, error)
            rows = [stamp.failed(task, sample, RolloutError(f"its trajectory cannot be published: {error}"))]
            await self._send(rows)
        return rows

    async def _send(self, rows: Sequence[Experience]) -> None:
        await asyncio.gather(*(self._publisher.publish("experiences", row) for row in rows))
