"""How urgently a group is to be trained; higher is trained first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rft.errors import RewardError
from rft.plugins import load

Prioritizer = Callable[[Sequence[float]], float]
"""From the rewards of a group's usable members (at least one) to its priority."""


def fifo(rewards: Sequence[float]) -> float:
    """All alike: the trainer takes groups in the order of their tasks."""
    return 0.0


def reward_variance(rewards: Sequence[float]) -> float:
    """Population variance of the rewards: groups that disagree teach more, those that agree teach GRPO nothing."""
    return float(np.var(np.asarray(rewards, dtype=np.float64)))


NAMED: dict[str, Prioritizer] = {"fifo": fifo, "reward_variance": reward_variance}


def make_prioritizer(name: str) -> Prioritizer:
    """The prioritizer by its name in the configuration, or ``package.module:function``.

    Raises:
        ConfigError: There is no such function.
    """
    return NAMED[name] if name in NAMED else load(name)


def priority(rewards: Sequence[float], prioritizer: Prioritizer) -> float:
    """Priority of a group; 0 when no member is usable.

    Raises:
        RewardError: A prioritizer of one's own raised or did not return a finite number.
    """
    if not rewards:
        return 0.0
    try:
        value = float(prioritizer(rewards))
    except Exception as error:  # a function of the user's may raise anything
        raise RewardError(f"the priority function raised {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise RewardError(f"the priority function returned {value}, not a finite number")
    return value
