"""Reward functions for rewarders: slow, failing, of a whole group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rft.rewards.functions import Sample


def length(response: str, answer: str | None, *, pause_s: float = 0.02) -> float:
    time.sleep(pause_s)
    if response == "fail":
        raise ValueError("this one cannot be judged")
    return float(len(response))


async def length_later(response: str, answer: str | None, *, pause_s: float = 0.02) -> dict[str, float | None]:
    await asyncio.sleep(pause_s)
    return {"letters": float(len(response)), "spaces": None}


def rank(samples: Sequence[Sample], *, pause_s: float = 0.02) -> list[float | None]:
    """Reward each sample by its rank among the lengths of its group."""
    time.sleep(pause_s)
    ordered = sorted(len(sample.response) for sample in samples)
    return [float(ordered.index(len(sample.response))) for sample in samples]


def hang(response: str, answer: str | None) -> float:
    time.sleep(1e6)
    return 0.0


def nothing(response: str, answer: str | None) -> None:
    """Abstain."""


async def hang_later(response: str, answer: str | None) -> float:
    await asyncio.sleep(1e6)
    return 0.0
