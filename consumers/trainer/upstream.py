"""Decides when a trainer that does not pace the run has nothing more to wait for.

A trainer that follows another ends when that one has ended and no more events come. An offline trainer, which follows
none, ends when no more events have come for ``trainer.patience_s``. One that learns from agents which come by
themselves is not offline: they may come at any time.
"""

from __future__ import annotations

import logging
import time

from consumers.trainer.ready_reader import client_id
from rft.config import Config
from rft.log.reader import EventReader
from rft.log.records import CountedRejects, read_records
from schemas.events import WeightVersion

QUIET_S = 5.0
"""Time without events on ``ready``, evaluations included, after which a following trainer ends."""
POLL_EVERY_S = 1.0

logger = logging.getLogger(__name__)


class UpstreamTrainer:
    """Watches the trainer that ``trainer.follows`` names, if there is one."""

    def __init__(self, config: Config) -> None:
        """Raises BrokerError."""
        self._follows = config.trainer.follows
        offline = config.run.mode == "train" and self._follows is None and not config.gateway.serve
        self._offline_limit_s = config.trainer.patience_s if offline else 0.0
        self._begun = False
        self._reader = EventReader(config, f"{client_id(config)}-source", ["weights"]) if self._follows else None
        self._rejects = CountedRejects()
        self._ended = False
        self._progress_at = self._polled_at = time.monotonic()

    def note_progress(self) -> None:
        """Note that events came from ``ready``, or that a step became possible."""
        self._begun = True
        self._progress_at = time.monotonic()

    @property
    def exhausted(self) -> bool:
        """True if no more events will come. Raises BrokerError."""
        now = time.monotonic()
        if self._offline_limit_s and self._begun and now - self._progress_at >= self._offline_limit_s:
            return True
        if self._reader is not None and not self._ended and now - self._polled_at >= POLL_EVERY_S:
            self._read_versions(self._reader)
            self._polled_at = now
        return self._ended and now - self._progress_at >= QUIET_S

    def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._reader.close()

    def _read_versions(self, reader: EventReader) -> None:
        while events := reader.poll(0.0):
            for version in read_records(events, WeightVersion, self._rejects.reject):
                if version.model == self._follows and version.final:
                    self._ended = True
                    self._progress_at = time.monotonic()
                    logger.info("trainer '%s' has ended; this one ends when no more events come", self._follows)
