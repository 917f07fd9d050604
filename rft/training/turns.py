"""Finds the turns of a step's trajectories: which tokens they have, what they earned and in which state they began."""

from __future__ import annotations

import numpy as np

from rft.algorithms.inputs import Flags, Turns
from rft.training.batch import StepBatch
from schemas.turns import turn_starts


def turns_of(batch: StepBatch, chosen: Flags) -> Turns:
    """Return the turns of the samples whose sequences are ``chosen`` [B]. Their tokens are numbered without the others.

    The state in which a turn began is what the policy read since its last turn: the tokens between the two, or from the
    beginning of the row.
    """
    owners: list[int] = []
    counts: list[int] = []
    rewards: list[float] = []
    states: list[int] = []
    numbers: dict[bytes, int] = {}
    samples = np.unique(batch.samples[chosen], return_inverse=True)[1]
    for owner, index in zip(samples.tolist(), np.flatnonzero(chosen).tolist(), strict=True):
        payload = batch.payloads[index]
        mask = payload.action_mask != 0
        starts = turn_starts(payload.action_mask)
        given = payload.turn_rewards if payload.turn_rewards.size else np.full(starts.size, np.nan)
        read_from, carried = 0, float("nan")
        for start, reward in zip(starts.tolist(), given.tolist(), strict=True):
            rest = np.flatnonzero(~mask[start:])
            end = start + int(rest[0]) if rest.size else len(mask)
            state = numbers.setdefault(payload.tokens[read_from:start].tobytes(), len(numbers))
            read_from = end
            reward = _sum(carried, float(reward))
            if end == 1:
                # The first token of a sequence is never learned, so the next turn gets what this one earned.
                carried = reward
                continue
            carried = float("nan")
            owners.append(owner)
            counts.append(end - max(start, 1))
            rewards.append(reward)
            states.append(state)
    lengths = np.array(counts, dtype=np.int64)
    return Turns(
        owners=np.array(owners, dtype=np.int64),
        starts=np.cumsum(lengths) - lengths,
        counts=lengths,
        rewards=np.array(rewards, dtype=np.float64),
        states=np.array(states, dtype=np.int64),
    )


def _sum(before: float, reward: float) -> float:
    """Add two rewards, of which either may be NaN: not known."""
    known = [value for value in (before, reward) if not np.isnan(value)]
    return sum(known) if known else float("nan")
