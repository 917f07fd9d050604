"""The reward of one experience: the producer's own when it brings one, otherwise the configured functions'."""

from __future__ import annotations

import math
from collections.abc import Callable

from rft.errors import RewardError
from schemas.events import Experience

Scorer = Callable[[Experience], tuple[float, dict[str, float]]]
"""Combined reward, and the reward by function."""

GIVEN = "given"
"""Name in ``rewards`` of a reward that came with the experience."""


def score(experience: Experience, scorer: Scorer) -> tuple[float, dict[str, float]]:
    """Combined reward and reward by function.

    A demonstration without a reward of its own has 0: it is learned from as it is.

    Raises:
        RewardError: A reward function raised, whatever it raised, or did not return a finite number.
    """
    if experience.reward is not None:
        return experience.reward, {GIVEN: experience.reward}
    if experience.kind == "demonstration":
        return 0.0, {}
    try:
        reward, rewards = scorer(experience)
    except RewardError:
        raise
    except Exception as error:  # a function of the user's may raise anything; one event must not stop the others
        raise RewardError(f"the reward function raised {type(error).__name__}: {error}") from error
    if not math.isfinite(reward):
        raise RewardError(f"the combined reward is {reward}, not a finite number")
    return reward, rewards
