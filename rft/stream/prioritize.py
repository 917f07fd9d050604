"""Computes the priority of a group: the trainer takes higher ones first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rft.algorithms.group_statistics import reward_variance
from rft.errors import RewardError
from rft.plugins import USER_FAILURES, resolve

Prioritizer = Callable[[Sequence[float]], float]
"""Maps the rewards of a group's usable samples (at least one) to its priority."""


def fifo(rewards: Sequence[float]) -> float:
    """Return the same priority for all groups: the trainer takes them in the order of their tasks."""
    return 0.0


NAMED: dict[str, Prioritizer] = {"fifo": fifo, "reward_variance": reward_variance}


def make_prioritizer(name: str) -> Prioritizer:
    """Return the prioritizer of that name, or the function ``package.module:function``. Raises ConfigError."""
    return resolve("processor.priority", name, NAMED)


def priority(rewards: Sequence[float], prioritizer: Prioritizer) -> float:
    """Return the priority of a group; 0 when no sample is usable.

    Raises:
        RewardError: A user's prioritizer raised, or did not return a finite number.
    """
    if not rewards:
        return 0.0
    try:
        value = float(prioritizer(rewards))
    except USER_FAILURES as error:  # a user's function may raise anything
        raise RewardError(f"the priority function raised {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise RewardError(f"the priority function returned {value}, not a finite number")
    return value
