"""Computes one advantage for each turn from rewards by turn, over all samples of a step. Pure.

The reward of a sample is earned by its last turn, in addition to that turn's own reward. The penalties of a sample's
tokens are subtracted there. All functions take one :class:`rft.algorithms.inputs.Trajectories` with turns, and return
float64 advantages [M]: each token has that of its turn.
"""

from __future__ import annotations

import numpy as np

from rft.algorithms.advantages import group_centered, group_normalized
from rft.algorithms.inputs import Flags, Floats, Ints, Trajectories, Turns


def turn_normalized(steps: Trajectories, *, gamma: float = 1.0) -> Floats:
    """Return ``Σ_{j ≥ k} gamma^(j - k) · (r_j - mean) / std`` for turn k: GRPO with process supervision
    (https://arxiv.org/abs/2402.03300, section 4.1.3), discounted by turn.

    Mean and standard deviation are those of all rewards of the group's turns. A turn whose reward is not known has no
    part in them and adds nothing. Without any rewards by turn and with ``gamma`` 1 this is GRPO.
    """
    turns = _turns(steps)
    rewards, known = _earned(steps, turns)
    normalized = np.zeros(len(rewards))
    normalized[known] = group_normalized(rewards[known], _numbered(steps.groups[turns.owners[known]]))
    return _spread(_discounted(normalized, turns.owners, gamma), turns)


def gigpo(steps: Trajectories, *, gamma: float = 0.95, weight: float = 1.0, normalize: bool = True) -> Floats:
    """Return ``A_E + weight · A_S``: GiGPO (https://arxiv.org/abs/2505.10978, section 4).

    ``A_E`` compares the total of a sample's rewards with those of its group (episode relative advantage). ``A_S``
    compares the return ``R_k = Σ_{j ≥ k} gamma^(j - k) · r_j`` of a turn with those of the group's turns that began in
    the same state (step relative advantage); a state that occurs once gives 0. With ``normalize`` both are divided by
    the standard deviation (F_norm = std), else not (F_norm = 1).

    The anchor state of a turn is what the policy read since its last turn: all tokens between the two, or from the
    row's beginning. So the same observation after other histories is the same state.
    """
    turns = _turns(steps)
    rewards, _ = _earned(steps, turns)
    compare = group_normalized if normalize else group_centered
    totals = np.zeros(len(steps.rewards))
    np.add.at(totals, turns.owners, rewards)
    episode = compare(totals, steps.groups)
    groups = steps.groups[turns.owners]
    anchors = np.unique(np.stack([groups, turns.states]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    step = compare(_discounted(rewards, turns.owners, gamma), anchors)
    return _spread(episode[turns.owners] + weight * step, turns)


def _turns(steps: Trajectories) -> Turns:
    if steps.turns is None:
        raise RuntimeError("advantages by turn need turns")
    return steps.turns


def _earned(steps: Trajectories, turns: Turns) -> tuple[Floats, Flags]:
    """Return the reward of each turn, 0 where none is known, and where one is known; both [K]."""
    last = np.flatnonzero(turns.owners != np.append(turns.owners[1:], -1))
    trajectories = np.arange(len(steps.counts), dtype=np.int64)
    penalties = np.bincount(
        np.repeat(trajectories, steps.counts), weights=steps.penalties, minlength=len(steps.rewards)
    )
    known = ~np.isnan(turns.rewards)
    rewards = np.where(known, turns.rewards, 0.0)
    rewards[last] += (steps.rewards - penalties)[turns.owners[last]]
    known[last] = True
    return rewards, known


def _discounted(rewards: Floats, owners: Ints, gamma: float) -> Floats:
    """Return ``Σ_{j ≥ k} gamma^(j - k) · rewards[j]`` over the turns of the same trajectory, [K]."""
    returns = rewards.copy()
    for k in range(len(returns) - 2, -1, -1):
        if owners[k] == owners[k + 1]:
            returns[k] += gamma * returns[k + 1]
    return returns


def _numbered(groups: Ints) -> Ints:
    """Number the groups from 0 without gaps."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _spread(values: Floats, turns: Turns) -> Floats:
    """Repeat each turn's value at its tokens, [M]."""
    return np.repeat(values, turns.counts)
