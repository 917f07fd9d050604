"""Decides what is published of a group: the verdict on each sample, the group's priority and its release id."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from rft.config import ProcessorConfig
from rft.errors import RewardError
from rft.stream.actions import Publish
from rft.stream.pending_sample import PendingSample
from rft.stream.prioritize import priority
from rft.stream.rules import Rules
from rft.stream.sample_rows import last_rows
from schemas.events import ScoredExperience

logger = logging.getLogger(__name__)

LEAST_SAMPLES = {"demonstration": 1, "preference": 2}
"""Usable samples that a group of that kind needs, whatever ``processor.min_group_size`` is."""


class GroupPublisher:
    """Makes the events of released groups and counts them."""

    def __init__(self, rules: Rules, counts: Counter[str]) -> None:
        self._rules = rules
        self._counts = counts

    def publish(
        self, partition: int, group_id: str, samples: Collection[PendingSample], now_ms: int, cause: str | None = None
    ) -> Publish:
        """Publish every row of every sample with its verdict: its own cause first, else the group's, else ``train``.

        Args:
            cause: Why the whole group is filtered; by default :func:`group_cause` decides.
        """
        cause = cause or group_cause(samples, self._rules.config)
        group_priority = self._priority(group_id, usable_rewards(samples))
        identity = release_id(sample.experience.experience_id for sample in samples)
        scored = tuple(
            ScoredExperience(
                experience=sample.experience,
                origin_partition=partition,
                origin_offset=sample.offset,
                verdict="train" if (sample.cause or cause) is None else "filtered",
                cause=sample.cause or cause,
                reward=sample.reward,
                rewards=sample.rewards,
                priority=group_priority,
                release_id=identity,
                release_size=len(samples),
                scored_at=now_ms,
            )
            for sample in samples
        )
        self._counts["groups"] += 1
        for one in scored:
            self._counts["ready" if one.cause is None else f"filtered:{one.cause}"] += 1
        offsets = tuple(sample.offset for sample in samples)
        return Publish(partition, group_id, scored, offsets, sum(sample.size_bytes for sample in samples))

    def _priority(self, group_id: str, rewards: Sequence[float]) -> float:
        try:
            return priority(rewards, self._rules.prioritizer)
        except RewardError as error:
            self._counts["priority_failed"] += 1
            logger.warning("group %s gets priority 0: %s", group_id, error)
            return 0.0


def usable_rewards(samples: Iterable[PendingSample]) -> list[float]:
    """Return the rewards of the samples that are not filtered, one a sample, however many rows it has."""
    return [sample.reward for sample in last_rows(samples) if sample.cause is None]


def group_cause(samples: Collection[PendingSample], config: ProcessorConfig) -> str | None:
    """Return why the group as a whole is kept out of training; None when it is not. Evaluation groups never are.

    A demonstration stands for itself, a preference needs both its samples; only rollouts are compared by reward.
    """
    if not samples:
        return "group_too_small"
    first = next(iter(samples)).experience
    if first.split == "eval":
        return None
    rewards = usable_rewards(samples)
    if len(rewards) < LEAST_SAMPLES.get(first.kind, config.min_group_size):
        return "group_too_small"
    if first.kind == "rollout" and config.drop_uniform_groups and max(rewards) == min(rewards):
        return "uniform"
    return None


def release_id(experience_ids: Iterable[str]) -> str:
    """Return a digest of the samples, whatever their order: the same samples released twice have the same id."""
    digest = hashlib.sha256("\n".join(sorted(experience_ids)).encode())
    return digest.hexdigest()[:32]
