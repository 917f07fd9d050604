"""Says which numbers can be rewards."""

from __future__ import annotations

import math

MAX_REWARD = 1e9
"""Far above any sensible reward. The sums and squares that advantages need stay finite in float32."""
ALLOWED = f"from {-MAX_REWARD:g} to {MAX_REWARD:g}"


def is_reward(value: float) -> bool:
    """Return whether a number can be a reward."""
    return math.isfinite(value) and abs(value) <= MAX_REWARD
