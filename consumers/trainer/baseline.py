"""Delays the first step, in the mode ``train``, until the weights that training starts from are evaluated.

Nothing else paces the trainer in that mode.
"""

from __future__ import annotations

import logging

from rft.config import Config

KEY_PREFIX = b"eval-00000000-"
"""Begins the keys of the evaluation of version 0."""

logger = logging.getLogger(__name__)


class Baseline:
    """Counts the results of the evaluation before training. Pure."""

    def __init__(self, config: Config, step: int) -> None:
        """``step`` is the trainer's; after the first there is nothing to wait for."""
        waits = config.run.mode == "train" and config.trainer.follows is None and step == 0
        self._expected = sum(chosen.tasks for chosen in config.eval_sets.values()) if waits else 0
        self._keys: set[bytes] = set()
        if self._expected:
            logger.info("waiting for the evaluation before training, %d tasks", self._expected)

    def note_key(self, key: bytes | None) -> None:
        """Note that an event of ``ready`` with this key was read."""
        if not self.complete and key is not None and key.startswith(KEY_PREFIX):
            self._keys.add(key)

    @property
    def complete(self) -> bool:
        """True if training may begin."""
        return len(self._keys) >= self._expected
