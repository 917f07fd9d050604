"""Sends rewards from Python programs outside the loop: people's votes, test suites, judges; see ``docs/rewards.md``."""

from __future__ import annotations

from producers.rewards.producer import RewardProducer, group_of

__all__ = ["RewardProducer", "group_of"]
