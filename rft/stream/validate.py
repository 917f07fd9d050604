"""Checks whether a decoded event can be used at all. An invalid event is a dead letter, not a filtered sample."""

from __future__ import annotations

import json

import numpy as np

from rft.errors import DecodeError
from rft.log.record_checks import SHOWN, check_group_id, check_printable, printable
from rft.rewards.bounds import ALLOWED, is_reward
from schemas.events import NOT_WRITTEN, Experience, Reward
from schemas.turns import turn_starts

KINDS = ("rollout", "demonstration", "preference")
SPLITS = ("train", "eval")
FINISH_REASONS = ("stop", "length", "error")
MAX_GROUP_SIZE = 65_536
"""Far above any sensible group: a number in a malformed event must not decide how much is remembered."""

MAX_ROWS = 1024
"""Rows of one sample."""

MAX_NAMED_REWARDS = 256
"""Rewards by name of one experience."""

MAX_NAME = 256
"""Length of the name of such a reward, and of the source of an experience whose sample has several rows."""

MAX_SUFFIX = 256
"""Length of an experience_id beyond its group's, where it waits for external rewards."""

MAX_LOGPROB = 1e-3
"""Log-probabilities are at most 0; softmax in half precision may round a little above."""


def validate(experience: Experience, key: bytes | None) -> None:
    """Check what the schema cannot express.

    Args:
        key: The event's key. It must be the group's id because it decides the partition: samples of one group in
            several partitions would never meet.

    Raises:
        DecodeError: Names the invalid field.
    """
    check_group_id(experience.group_id)
    if key != experience.group_id.encode():
        raise DecodeError(f"{printable(key)} is not the group_id, {experience.group_id!r}", field="key")
    if not experience.experience_id.startswith(f"{experience.group_id}/"):
        raise DecodeError(
            f"{experience.experience_id!r} does not begin with {experience.group_id + '/'!r}",
            field="experience_id",
        )
    if not 1 <= experience.group_size <= MAX_GROUP_SIZE:
        raise DecodeError(f"is {experience.group_size}, allowed: 1 to {MAX_GROUP_SIZE}", field="group_size")
    if not 0 <= experience.spare < experience.group_size:
        raise DecodeError(
            f"is {experience.spare}, allowed: 0 to {experience.group_size - 1}, below group_size", field="spare"
        )
    if not 0 <= experience.sample < experience.group_size:
        raise DecodeError(
            f"is {experience.sample}, allowed: 0 to {experience.group_size - 1}, below group_size", field="sample"
        )
    _check_rows(experience)
    check_printable("experience_id", experience.experience_id)
    _check_choice("kind", experience.kind, KINDS)
    _check_choice("split", experience.split, SPLITS)
    _check_choice("finish_reason", experience.finish_reason, FINISH_REASONS)
    _check_reward("reward", experience.reward)
    _check_named_rewards(experience)
    _check_metadata(experience.metadata)
    _check_arrays(experience)
    _check_turn_rewards(experience)


def validate_reward(reward: Reward, key: bytes | None) -> None:
    """Check what the schema cannot express. Raises DecodeError that names the invalid field."""
    check_group_id(reward.group_id)
    if key != reward.group_id.encode():
        raise DecodeError(f"is not the group_id, {reward.group_id[:80]!r}", field="key")
    if not reward.experience_id.startswith(f"{reward.group_id}/"):
        raise DecodeError(f"does not begin with {reward.group_id[:80] + '/'!r}", field="experience_id")
    if len(reward.experience_id) - len(reward.group_id) - 1 > MAX_SUFFIX:
        raise DecodeError(f"is more than {MAX_SUFFIX} longer than its group_id", field="experience_id")
    check_printable("experience_id", reward.experience_id)
    _check_reward("value", reward.value)


def check_group_size(experience: Experience, size: int) -> None:
    """Check that an experience names the size that its group's first one named. Raises DecodeError."""
    if experience.group_size != size:
        raise DecodeError(
            f"is {experience.group_size}, but the first experience of group {experience.group_id!r} says {size}",
            field="group_size",
        )


def _check_rows(experience: Experience) -> None:
    if not 1 <= experience.rows <= MAX_ROWS:
        raise DecodeError(f"is {experience.rows}, allowed: 1 to {MAX_ROWS}", field="rows")
    if not 0 <= experience.row < experience.rows:
        raise DecodeError(f"is {experience.row}, allowed: 0 to {experience.rows - 1}, below rows", field="row")
    if experience.rows == 1:
        return
    if experience.kind != "rollout":
        raise DecodeError(f"is {experience.rows}, but a {experience.kind} has one row", field="rows")
    expected = f"{experience.group_id}/{experience.sample}/{experience.row}"
    if experience.experience_id != expected:
        raise DecodeError(
            f"is {experience.experience_id[:SHOWN]!r}, must be {expected[:SHOWN]!r}: one of several rows is named "
            "group_id/sample/row",
            field="experience_id",
        )
    if len(experience.source) > MAX_NAME:
        raise DecodeError(f"is longer than {MAX_NAME} characters", field="source")


def _check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise DecodeError(f"is {value[:80]!r}, allowed: {', '.join(allowed)}", field=field)


def _check_reward(field: str, value: float | None) -> None:
    if value is not None and not is_reward(value):
        raise DecodeError(f"is {value}; rewards are finite and {ALLOWED}", field=field)


def _check_named_rewards(experience: Experience) -> None:
    if len(experience.rewards) > MAX_NAMED_REWARDS:
        raise DecodeError(f"has {len(experience.rewards)} names, allowed: {MAX_NAMED_REWARDS}", field="rewards")
    for name, value in experience.rewards.items():
        if not 1 <= len(name) <= MAX_NAME:
            raise DecodeError(
                f"has a name of {len(name)} characters ({name[:SHOWN]!r}), allowed: 1 to {MAX_NAME}", field="rewards"
            )
        _check_reward(f"rewards[{name[:SHOWN]!r}]", value)


def _check_metadata(text: str) -> None:
    if text == "{}":
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"is not JSON: {error}", field="metadata") from None
    if not isinstance(value, dict):
        raise DecodeError(f"is a JSON {type(value).__name__}, not an object", field="metadata")


def _check_arrays(experience: Experience) -> None:
    """Check versions and log-probabilities. The codec has checked lengths, mask values and finiteness."""
    if not experience.tokens.size:
        return
    written = experience.action_mask == 1
    versions = experience.versions
    if bool((versions[~written] != NOT_WRITTEN).any()):
        raise DecodeError("names a version for a token that no policy wrote", field="versions")
    if experience.kind == "rollout" and bool((versions[written] < 0).any()):
        raise DecodeError("has no version for a token that the policy wrote", field="versions")
    if float(experience.logprobs.max()) > MAX_LOGPROB:
        raise DecodeError("holds a positive log-probability", field="logprobs")


def _check_turn_rewards(experience: Experience) -> None:
    """Check the number of the rewards by turn, and their values. NaN says that a turn has none."""
    rewards = experience.turn_rewards
    if not rewards.size:
        return
    turns = turn_starts(experience.action_mask).size
    if rewards.size != turns:
        raise DecodeError(
            f"has {rewards.size} elements, but the action_mask has {turns} turns (contiguous runs of 1)",
            field="turn_rewards",
        )
    for reward in rewards[~np.isnan(rewards)].tolist():
        _check_reward("turn_rewards", reward)
