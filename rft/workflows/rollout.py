"""Defines what a rollout gives: rows to learn from, and what the workflow says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rft.errors import RolloutError
from rft.rewards.bounds import ALLOWED, is_reward
from rft.workflows.trajectory import Trajectory

MAX_METADATA_CHARS = 256 * 1024
MAX_REWARDS = 64
MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a workflow says of its rollout. All of it may be left out: then the reward functions decide."""

    reward: float | None = None
    """Of the whole rollout."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Of the whole rollout, by name. They are added up, unless ``reward`` is given; one with the name of an external
    source is that source's reward."""
    turn_rewards: Mapping[int, float] = field(default_factory=dict)
    """By ``Turn.index``, in addition to ``reward``."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values, kept with the experience under ``rollout``."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One rollout: one row or several, in the order in which they began."""

    rows: tuple[Trajectory, ...]
    outcome: Outcome = field(default_factory=Outcome)
    turns_of_rows: tuple[tuple[int, ...], ...] = ()
    """For each row, the indexes of the turns that it teaches; empty if the workflow does not count turns."""

    def turn_rewards(self, row: int) -> list[float]:
        """Return the reward of each turn of a row, NaN where it has none; empty if no turn has one."""
        if not self.outcome.turn_rewards or not self.turns_of_rows:
            return []
        return [self.outcome.turn_rewards.get(turn, math.nan) for turn in self.turns_of_rows[row]]


def as_outcome(returned: object) -> Outcome:
    """Return what a conversation workflow returned as an outcome. Raises RolloutError that names what is wrong."""
    if returned is None:
        return Outcome()
    if isinstance(returned, Outcome):
        return Outcome(
            None if returned.reward is None else _reward("reward", returned.reward),
            _named(returned.rewards),
            _by_turn(returned.turn_rewards),
            _metadata(returned.metadata),
        )
    if isinstance(returned, Mapping):
        return Outcome(rewards=_named(returned))
    if isinstance(returned, Trajectory):
        raise RolloutError(
            "a workflow with a conversation returns rewards, an Outcome or nothing, not a Trajectory: its tokens are "
            "those of the conversation"
        )
    return Outcome(reward=_reward("reward", returned))


def _reward(name: str, value: object) -> float:
    # Numbers of numpy and torch, too, but no texts and no arrays.
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, bool | int | float) and is_reward(float(value)):
        return float(value)
    raise RolloutError(f"the workflow's {name} is {value!r:.200}; rewards are finite numbers and {ALLOWED}")


def _named(rewards: object) -> dict[str, float]:
    if not isinstance(rewards, Mapping) or len(rewards) > MAX_REWARDS:
        raise RolloutError(f"the workflow's rewards must be a mapping of at most {MAX_REWARDS} names to numbers")
    for name in rewards:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
            raise RolloutError(f"the workflow's reward has the name {name!r:.200}; names are texts")
    return {name: _reward(f"reward {name!r}", value) for name, value in rewards.items()}


def _by_turn(rewards: object) -> dict[int, float]:
    if not isinstance(rewards, Mapping) or not all(isinstance(turn, int) and turn >= 0 for turn in rewards):
        raise RolloutError("the workflow's turn_rewards must be a mapping of turn numbers (Turn.index) to numbers")
    return {turn: _reward(f"reward of turn {turn}", value) for turn, value in rewards.items()}


def _metadata(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise RolloutError(f"the workflow's metadata is {type(metadata).__name__}, it must be a mapping")
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RolloutError(f"the workflow's metadata cannot be written as JSON: {error}") from error
    if len(text) > MAX_METADATA_CHARS:
        raise RolloutError(f"the workflow's metadata has {len(text)} characters, at most {MAX_METADATA_CHARS} may be")
    return dict(json.loads(text))
