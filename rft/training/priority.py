"""Which groups are trained first. Pure; higher comes first.

All are numbers of a group that never change, so that the order of two groups never does. A decay is no exception: all
priorities decay at one rate, ``p · 2^(-age / half-life)``, and their order is that of ``log2 p + version / half-life``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rft.config import BufferConfig
from rft.errors import ConfigError
from rft.plugins import load

SMALLEST = 2.0**-40
"""Stands for a priority of 0 or less under decay: far below any that means something, and finite in logarithm."""


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What a priority is made of; only members to be trained count."""

    rewards: Sequence[float]
    priority: float
    """The processor's."""
    oldest_version: int
    """-1 when the policy wrote none of it."""
    number: int
    """The task's; -1 when no conductor issued it."""


Priority = Callable[[GroupFacts], float]


def processor(group: GroupFacts) -> float:
    """As the event says."""
    return group.priority


def recency(group: GroupFacts) -> float:
    """The newest first."""
    return float(group.oldest_version)


def staleness(group: GroupFacts) -> float:
    """The stalest first, before it is too stale."""
    return -float(group.oldest_version)


def reward_variance(group: GroupFacts) -> float:
    """Population variance of the rewards."""
    return float(np.var(np.asarray(group.rewards, dtype=np.float64)))


def difficulty(group: GroupFacts) -> float:
    """The lowest mean reward first: 1 minus it."""
    return 1.0 - math.fsum(group.rewards) / len(group.rewards)


NAMED: dict[str, Priority] = {f.__name__: f for f in (processor, recency, staleness, reward_variance, difficulty)}


def make_priority(config: BufferConfig) -> Priority:
    """The function that ``buffer.priority`` names, with its decay. Raises ConfigError when there is none.

    A function of the user's that raises or gives no finite number counts as 0.
    """
    name = config.priority
    if name not in NAMED and ":" not in name:
        raise ConfigError(f"buffer.priority = {name!r}: choose {', '.join(NAMED)} or package.module:function")
    function = NAMED[name] if name in NAMED else _of_user(load(name))
    half_life = config.recency_half_life
    if half_life is None:
        return function
    return lambda group: math.log2(max(function(group), SMALLEST)) + group.oldest_version / half_life


def _of_user(function: Callable[..., float]) -> Priority:
    def priority(group: GroupFacts) -> float:
        try:
            value = float(function(group.rewards, group.oldest_version, group.number))
        # Anyone's code; one group's trouble must not stop the training.
        except Exception:
            return 0.0
        return value if math.isfinite(value) else 0.0

    return priority
