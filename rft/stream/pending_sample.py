"""Cleans and scores one experience, which makes it a pending sample of its group."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field

from rft.config import ProcessorConfig
from rft.errors import RewardError
from rft.plugins import USER_FAILURES
from rft.rewards.bounds import ALLOWED, is_reward
from rft.rewards.scorer import Scorer
from rft.stream.actions import Received
from rft.stream.rules import Rules
from schemas.events import Experience

GIVEN = "given"
"""Name in ``rewards`` of a reward that came with the experience."""


@dataclass(frozen=True, slots=True)
class PendingSample:
    """Holds one distinct experience of an open group, cleaned and scored: one row of a sample."""

    experience: Experience
    partition: int
    offset: int
    size_bytes: int
    cause: str | None
    """Why it is filtered; None when it is usable."""
    reward: float = 0.0
    rewards: dict[str, float] = field(default_factory=dict)


def make_pending_sample(
    experience: Experience, event: Received, rules: Rules
) -> tuple[PendingSample, RewardError | None]:
    """Clean and score one experience.

    A failing reward function yields the error and a filtered sample: if all samples of a group fail, the group must
    still be published, or its task is never retired.
    """
    cause = filter_cause(experience, rules.config)
    if cause is not None:
        return PendingSample(experience, event.partition, event.offset, event.size_bytes, cause), None
    if experience.row < experience.rows - 1:
        # The reward of a sample is that of its last row.
        return PendingSample(experience, event.partition, event.offset, event.size_bytes, None), None
    try:
        reward, rewards = score(experience, rules.scorer, rules.external_sources(experience.split))
    except RewardError as error:
        return PendingSample(experience, event.partition, event.offset, event.size_bytes, "score_failed"), error
    return PendingSample(experience, event.partition, event.offset, event.size_bytes, None, reward, rewards), None


def filter_cause(experience: Experience, config: ProcessorConfig) -> str | None:
    """Return why a well-formed experience is kept out of training; None when it is usable.

    A held-out rollout is filtered only when it failed: an evaluation counts all answers, also long and truncated ones.
    """
    if experience.finish_reason == "error":
        return "rollout_failed"
    if experience.split == "eval":
        return None
    written = int(experience.action_mask.sum())
    if written == 0:
        return "empty"
    if config.max_response_tokens is not None and written > config.max_response_tokens:
        return "too_long"
    if config.drop_truncated and experience.finish_reason == "length":
        return "truncated"
    return None


def score(
    experience: Experience, scorer: Scorer, external_sources: Container[str] = ()
) -> tuple[float, dict[str, float]]:
    """Return the combined reward, and the reward by function or name.

    A reward that came with the experience is taken as it is. Otherwise the rewards by name that came with it are added
    to those of the functions. A function's reward takes the place of one with its name. A demonstration without any
    reward gets 0: it is trained on as it is.

    Args:
        external_sources: Sources that give external rewards. A reward of that name is theirs and is left out here.

    Raises:
        RewardError: A reward function raised anything, or did not return a finite number.
    """
    named = {}
    if experience.rewards:
        named = {name: value for name, value in experience.rewards.items() if name not in external_sources}
    if experience.reward is not None:
        return experience.reward, named | {GIVEN: experience.reward}
    if experience.kind == "demonstration":
        return _finite(math.fsum(named.values())), named
    try:
        reward, rewards = scorer(experience)
    except RewardError:
        raise
    except USER_FAILURES as error:  # a user's function may raise anything; one event must not stop the others
        raise RewardError(f"the reward function raised {type(error).__name__}: {error}") from error
    named = {name: value for name, value in named.items() if name not in rewards}
    if not named:
        return _finite(reward), rewards
    return _finite(math.fsum([reward, *named.values()])), named | rewards


def _finite(reward: float) -> float:
    if not is_reward(reward):
        raise RewardError(f"the combined reward is {reward}; rewards are finite and {ALLOWED}")
    return reward
