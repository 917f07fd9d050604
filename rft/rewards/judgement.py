"""Defines what a rewarder calls for each sample or group, and what it gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rft.rewards.functions import Sample


@dataclass(frozen=True, slots=True)
class Judgement:
    """The reward of one sample."""

    values: Mapping[str, float]
    """By name; the name of a single one is empty. Their sum is the reward. None of them: the judge abstains."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values to store with the reward, such as a judge's reason and its tokens."""

    @property
    def reward(self) -> float | None:
        """The sum of the values; None if there is none."""
        return math.fsum(self.values.values()) if self.values else None


@dataclass(slots=True)
class Usage:
    """What a rewarder has spent since its start."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the prices that are configured; 0 if none is."""

    def __str__(self) -> str:
        if not self.prompt_tokens + self.completion_tokens:
            return ""
        text = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"{text}, cost {self.cost:.4f}" if self.cost else text


class Judge(Protocol):
    """Rewards samples. Used on one event loop; several calls may run at once."""

    overhead_s: float
    """What a call may take beside the time that it is given: a function that ends a late call by itself may first have
    to start a process."""

    @property
    def usage(self) -> Usage:
        """What was spent so far."""

    async def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """Return a judgement of each sample: one sample, or all of a group.

        Raises:
            RewardError: These samples cannot be judged now; another try may help.
            RewardServiceError: No sample can be judged now.
            ConfigError: No sample can ever be judged, such as with a wrong API key.
        """

    async def close(self) -> None:
        """Release what it holds."""
