"""Holds what several checks look at. Each part is read once, when the first check asks for it."""

from __future__ import annotations

from rft.config import Config


class Facts:
    """A configuration, and what it names."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.trainers = [config, *(config.of_trainer(identity) for identity in config.trainers)]
        """The configuration as each trainer sees it, the main one first."""
