"""Formats numbers for one line of a terminal. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

SPARK = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """Draw the values as at most ``width`` blocks, averaging neighbors. Equal values give the lowest block."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(SPARK[round((mean - low) / span * (len(SPARK) - 1)) if span else 0] for mean in means)


def recent_mean(values: Sequence[float], count: int = 10) -> float:
    """Return the mean of the last ``count`` values: single steps are noisy."""
    recent = values[-count:]
    return sum(recent) / len(recent)


def clock(seconds: float) -> str:
    """Format as ``12:34`` or ``1:02:34``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
