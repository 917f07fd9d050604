"""Combines the external rewards of an experience with those of the reward functions."""

from __future__ import annotations

from math import prod

from rft.config import ExternalRewardsConfig
from rft.rewards.bounds import is_reward
from schemas.events import WaitingMember

FUNCTIONS = "functions"
"""Name in ``weights`` of the reward functions' sum."""
MISSING = "reward_missing"
"""Cause of samples without all required rewards at the deadline."""
NOT_FINITE = "reward_not_finite"


def missing_sources(sample: WaitingMember, config: ExternalRewardsConfig) -> tuple[str, ...]:
    """Return the required sources that have not sent a reward. A sample that is exempt or filtered needs none."""
    if sample.exempt or sample.cause is not None:
        return ()
    sources = {one.source for one in sample.external}
    return tuple(source for source in config.required if source not in sources)


def combine_rewards(
    sample: WaitingMember, config: ExternalRewardsConfig, has_functions: bool
) -> tuple[float, dict[str, float], str | None]:
    """Return the reward, the reward by function and source, and why the sample is filtered (None when it is usable).

    Args:
        has_functions: Whether any reward functions are configured.
    """
    rewards = dict(sample.rewards)
    if sample.cause is not None or sample.exempt:
        return sample.reward, rewards, sample.cause
    external = {one.source: one.value for one in sample.external}
    missing = missing_sources(sample, config)
    if missing and config.on_missing != "default":
        return 0.0, rewards | external, MISSING
    external |= dict.fromkeys(missing, config.default_value)
    # In the order of the configuration, not of arrival: floating-point sums depend on it.
    ordered = {source: external[source] for source in (*config.required, *config.optional) if source in external}
    own = bool(has_functions or sample.rewards)
    if config.combine == "product":
        total = prod([*([sample.reward] if own else []), *ordered.values()])
    else:
        weights = config.weights
        total = weights.get(FUNCTIONS, 1.0) * sample.reward if own else 0.0
        total += sum(weights.get(source, 1.0) * value for source, value in ordered.items())
    if not is_reward(total):
        return 0.0, rewards | ordered, NOT_FINITE
    return total, rewards | ordered, None
