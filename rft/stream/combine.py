"""What an experience still lacks of external rewards, and its one reward out of all that it has got."""

from __future__ import annotations

from math import isfinite, prod

from rft.config import ExternalRewardsConfig
from schemas.events import WaitingMember

FUNCTIONS = "functions"
"""Name in ``weights`` of the reward functions' sum."""
MISSING = "reward_missing"
"""Cause of members without all required rewards at the deadline."""
NOT_FINITE = "reward_not_finite"


def lacking(member: WaitingMember, config: ExternalRewardsConfig) -> tuple[str, ...]:
    """Required sources that have not given their reward; none when the experience is not to be trained on anyway."""
    if member.exempt or member.cause is not None:
        return ()
    given = {one.source for one in member.external}
    return tuple(source for source in config.required if source not in given)


def combined(
    member: WaitingMember, config: ExternalRewardsConfig, has_functions: bool
) -> tuple[float, dict[str, float], str | None]:
    """Reward, reward by function and source, and why the member is filtered (None when it is usable).

    Args:
        has_functions: Whether any reward functions are configured.
    """
    rewards = dict(member.rewards)
    if member.cause is not None or member.exempt:
        return member.reward, rewards, member.cause
    given = {one.source: one.value for one in member.external}
    missing = lacking(member, config)
    if missing and config.on_missing != "default":
        return 0.0, rewards | given, MISSING
    given |= dict.fromkeys(missing, config.default_value)
    # In the configuration's order, not that of arrival: floating-point sums depend on it.
    ordered = {source: given[source] for source in (*config.required, *config.optional) if source in given}
    own = bool(has_functions or member.rewards)
    if config.combine == "product":
        total = prod([*([member.reward] if own else []), *ordered.values()])
    else:
        weights = config.weights
        total = weights.get(FUNCTIONS, 1.0) * member.reward if own else 0.0
        total += sum(weights.get(source, 1.0) * value for source, value in ordered.items())
    if not isfinite(total):
        return 0.0, rewards | ordered, NOT_FINITE
    return total, rewards | ordered, None
