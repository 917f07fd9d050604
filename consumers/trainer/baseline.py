"""In the mode ``train`` nothing paces the trainer: by itself it waits until what it starts from is evaluated."""

from __future__ import annotations

import logging

from rft.config import Config

PREFIX = b"eval-00000000-"
"""Keys of the evaluation of version 0."""

logger = logging.getLogger(__name__)


class Baseline:
    """Counts the results of the evaluation before training. Pure."""

    def __init__(self, config: Config, step: int) -> None:
        """``step`` is how far the trainer is already: behind the first it waits for nothing."""
        waits = config.run.mode == "train" and config.trainer.follows is None and step == 0
        self._missing = sum(chosen.tasks for chosen in config.eval_sets.values()) if waits else 0
        self._seen: set[bytes] = set()
        if self._missing:
            logger.info("waiting for the evaluation before training, %d tasks", self._missing)

    def saw(self, key: bytes | None) -> None:
        """An event of ``ready`` with this key was read."""
        if not self.known and key is not None and key.startswith(PREFIX):
            self._seen.add(key)

    @property
    def known(self) -> bool:
        """Training may begin."""
        return len(self._seen) >= self._missing
