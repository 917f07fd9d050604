"""Computes statistics of one group's rewards. Needs neither torch nor a batch, so processors can use it too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def reward_variance(rewards: Sequence[float]) -> float:
    """Return the population variance of ``rewards`` (at least one).

    Groups whose samples disagree teach more. GRPO learns nothing from a group whose rewards are all equal.
    """
    return float(np.var(np.asarray(rewards, dtype=np.float64)))
