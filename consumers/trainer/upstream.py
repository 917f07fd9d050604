"""A trainer that does not pace the run: it ends when the one that does has ended and nothing more comes, or, where
there is none that does, when nothing more has come for long."""

from __future__ import annotations

import logging
import time

from consumers.trainer.intake import client_id
from rft.config import Config
from rft.log.events import EventReader
from schemas.events import WeightVersion

QUIET_S = 5.0
"""For so long nothing must have come on ``ready``, evaluations included, before a follower leaves."""
LOOK_EVERY_S = 1.0

logger = logging.getLogger(__name__)


class UpstreamTrainer:
    """Watches the trainer that ``trainer.follows`` names; without one the source never ends."""

    def __init__(self, config: Config) -> None:
        """Raises BrokerError."""
        self._follows = config.trainer.follows
        offline = config.run.mode == "train" and self._follows is None
        self._patience_s = config.trainer.patience_s if offline else 0.0
        self._began = False
        self._reader = EventReader(config, f"{client_id(config)}-source", ["weights"]) if self._follows else None
        self._finished = False
        self._news_at = self._looked_at = time.monotonic()

    def came(self) -> None:
        """Something was read from ``ready``, or there was enough of it for a step."""
        self._began = True
        self._news_at = time.monotonic()

    @property
    def dry(self) -> bool:
        """Whether nothing more will come. Raises BrokerError."""
        now = time.monotonic()
        if self._patience_s and self._began and now - self._news_at >= self._patience_s:
            return True
        if self._reader is not None and not self._finished and now - self._looked_at >= LOOK_EVERY_S:
            self._look(self._reader)
            self._looked_at = now
        return self._finished and now - self._news_at >= QUIET_S

    def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.close()

    def _look(self, reader: EventReader) -> None:
        while events := reader.poll(0.0):
            for event in events:
                if event.value is None:
                    continue
                version = event.record(WeightVersion)
                if version.model == self._follows and version.final:
                    self._finished = True
                    self._news_at = time.monotonic()
                    logger.info("trainer '%s' has ended; this one ends when nothing more comes", self._follows)
