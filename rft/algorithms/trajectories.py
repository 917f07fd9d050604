"""Advantages by token. Pure functions: :class:`rft.algorithms.inputs.Trajectories` in, float64 [M] out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rft.algorithms.advantages import whitened
from rft.algorithms.inputs import Floats, Trajectories, needs


class Estimate(NamedTuple):
    """What an estimator with a value head makes; both [M]."""

    advantages: Floats
    returns: Floats
    """What the value head is to learn."""


@needs(values=True)
def gae(steps: Trajectories, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> Estimate:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438, equation 16), for PPO.

    ``A_t = Σ_l (gamma · lam)^l · δ_{t+l}`` with ``δ_t = r_t + gamma · V_{t+1} - V_t`` and V = 0 after the last token;
    r_t is minus the token's penalty, and at the last token also the sequence's reward. Returns are A + V, before
    advantages are whitened over the step.
    """
    if steps.values is None:
        raise RuntimeError("GAE needs a value head")
    advantages = np.zeros(len(steps.values))
    for reward, start, count in zip(steps.rewards, steps.starts, steps.counts, strict=True):
        following, ahead = 0.0, 0.0
        for t in range(start + count - 1, start - 1, -1):
            last = t == start + count - 1
            delta = (reward if last else 0.0) - steps.penalties[t] + gamma * ahead - steps.values[t]
            advantages[t] = following = delta + gamma * lam * following
            ahead = steps.values[t]
    returns: Floats = advantages + steps.values
    return Estimate(whitened(advantages) if whiten else advantages, returns)


def returns_to_go(steps: Trajectories, *, gamma: float = 1.0) -> Floats:
    """Whitened over the step's tokens: ``r - Σ_{t' ≥ t} penalty``, discounted: REINFORCE++
    (https://arxiv.org/abs/2501.03262). Needs no group: one sample a task is enough."""
    advantages = np.zeros(len(steps.policy))
    for reward, start, count in zip(steps.rewards, steps.starts, steps.counts, strict=True):
        ahead = float(reward)
        for t in range(start + count - 1, start - 1, -1):
            advantages[t] = ahead = ahead - steps.penalties[t]
            ahead *= gamma
    return whitened(advantages)


@needs(teacher=True)
def teacher_gap(steps: Trajectories, *, scale: float = 1.0) -> Floats:
    """``scale · (log teacher - log policy)`` at each token: minus a sample of the reverse KL, which on-policy
    distillation minimises (GKD, https://arxiv.org/abs/2306.13649;
    https://thinkingmachines.ai/blog/on-policy-distillation). Rewards play no part."""
    if steps.teacher is None:
        raise RuntimeError("distillation needs a teacher")
    gap: Floats = scale * (steps.teacher - steps.policy)
    return gap
