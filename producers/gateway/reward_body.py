"""Reads rewards that come over HTTP. Pure."""

from __future__ import annotations

from typing import Any

from producers.gateway.contract import SessionReward
from producers.gateway.faults import RefusedError
from producers.gateway.fields import Fields
from rft.rewards.bounds import MAX_REWARD

MAX_TURN = 1_000_000
MAX_REVISION = 2**31 - 1
MAX_NAMES = 64
MAX_NAME_CHARS = 120


def parse_reward(values: dict[str, Any]) -> SessionReward:
    """Return the reward in a body. Raises RefusedError that names the field at fault."""
    body = Fields(values)
    body.only(("reward", "turn", "rewards", "revision"))
    revision = body.whole("revision", 0, MAX_REVISION) or 0
    value = body.number("reward", -MAX_REWARD, MAX_REWARD)
    named = body.object("rewards")
    if (value is None) == (named is None):
        raise RefusedError("reward", "give either reward (a number) or rewards (numbers by name)")
    if named is None:
        return SessionReward(value=value, turn=body.whole("turn", 0, MAX_TURN), revision=revision)
    if body.has("turn"):
        raise body.refuse("turn", "belongs to reward; rewards are of the whole session")
    if not 0 < len(named.values) <= MAX_NAMES or not all(0 < len(name) <= MAX_NAME_CHARS for name in named.values):
        raise body.refuse("rewards", f"must hold 1 to {MAX_NAMES} names of 1 to {MAX_NAME_CHARS} characters")
    rewards = {name: named.number(name, -MAX_REWARD, MAX_REWARD) for name in named.values}
    if missing := [name for name, number in rewards.items() if number is None]:
        raise named.refuse(missing[0], "must be a number, found nothing")
    return SessionReward(
        rewards={name: number for name, number in rewards.items() if number is not None}, revision=revision
    )
