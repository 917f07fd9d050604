"""Decides which groups are trained first. Pure; a higher priority comes first.

A group's priority never changes, so the order of two groups never does. With a decay, all priorities decay at one rate,
``p · 2^(-age / half-life)``. Their order is then that of ``log2 p + version / half-life``, which does not change
either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rft.algorithms.group_statistics import reward_variance
from rft.config import BufferConfig
from rft.plugins import USER_FAILURES, is_plugin, resolve

SMALLEST = 2.0**-40
"""Replaces a priority of 0 or less under a decay: far below any priority that matters, and its logarithm is finite."""


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """The numbers of a group that its priority is computed from."""

    rewards: Sequence[float]
    """Rewards of the samples to be trained."""
    priority: float
    """Priority that the processor gave."""
    oldest_version: int
    """Lowest version among the samples to be trained; -1 if the policy wrote none of them."""
    number: int
    """The task's number; -1 if no conductor issued it."""


Priority = Callable[[GroupFacts], float]

NAMED: dict[str, Priority] = {
    "processor": lambda group: group.priority,
    "recency": lambda group: float(group.oldest_version),
    "staleness": lambda group: -float(group.oldest_version),
    "reward_variance": lambda group: reward_variance(group.rewards),
    "difficulty": lambda group: 1.0 - math.fsum(group.rewards) / len(group.rewards),
}
"""Values of ``buffer.priority``: the processor's priority, newest first, stalest first, population variance of the
rewards, and lowest mean reward first."""


def make_priority(config: BufferConfig) -> Priority:
    """Return the function that ``buffer.priority`` names, with its decay. Raises ConfigError if there is none.

    If a plugin raises or returns no finite number, the priority is 0.
    """
    found: Callable[..., float] = resolve("buffer.priority", config.priority, NAMED)
    function = _guarded(found) if is_plugin(config.priority) else found
    half_life = config.recency_half_life
    if half_life is None:
        return function
    return lambda group: math.log2(max(function(group), SMALLEST)) + group.oldest_version / half_life


def _guarded(function: Callable[..., float]) -> Priority:
    """Call a plugin so that it cannot stop the training."""

    def priority(group: GroupFacts) -> float:
        # A plugin may raise anything.
        try:
            value = float(function(group.rewards, group.oldest_version, group.number))
        except USER_FAILURES:
            return 0.0
        return value if math.isfinite(value) else 0.0

    return priority
