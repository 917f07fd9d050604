"""Computes one advantage for each token, over all tokens of a step.

All functions are pure. They take one :class:`rft.algorithms.inputs.Trajectories` and return float64 advantages [M], or
an :class:`AdvantageEstimate` if a value head learns from them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rft.algorithms.advantages import whitened
from rft.algorithms.inputs import MAX_LOG_RATIO, Floats, Trajectories, needs


class AdvantageEstimate(NamedTuple):
    """What an estimator with a value head returns; both float64 [M]."""

    advantages: Floats
    returns: Floats
    """Targets of the value head."""


@needs(values=True)
def gae(steps: Trajectories, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> AdvantageEstimate:
    """Compute generalized advantage estimation (https://arxiv.org/abs/1506.02438, equation 16), for PPO.

    ``A_t = Σ_l (gamma · lam)^l · δ_{t+l}`` with ``δ_t = r_t + gamma · V_{t+1} - V_t`` and V = 0 after the last token.
    ``r_t`` is minus the token's penalty; at the last token of a turn that turn's reward is added, and at the last token
    of all the sample's reward. The returns are A + V, with A as it was before ``whiten`` scaled it to mean 0 and
    standard deviation 1 over the step.

    Raises RuntimeError without values.
    """
    if steps.values is None:
        raise RuntimeError("GAE needs a value head")
    advantages, immediate = np.zeros(len(steps.values)), token_rewards(steps)
    for reward, start, count in zip(steps.rewards, steps.starts, steps.counts, strict=True):
        next_advantage, next_value = 0.0, 0.0
        for t in range(start + count - 1, start - 1, -1):
            last = t == start + count - 1
            delta = (reward if last else 0.0) + immediate[t] + gamma * next_value - steps.values[t]
            advantages[t] = next_advantage = delta + gamma * lam * next_advantage
            next_value = steps.values[t]
    returns: Floats = advantages + steps.values
    return AdvantageEstimate(whitened(advantages) if whiten else advantages, returns)


def returns_to_go(steps: Trajectories, *, gamma: float = 1.0) -> Floats:
    """Return ``Σ_{t' ≥ t} gamma^(t' - t) · r_{t'}``, whitened over the step's tokens: REINFORCE++
    (https://arxiv.org/abs/2501.03262).

    ``r_t`` is minus the token's penalty; at the last token of a turn that turn's reward is added, and at the last token
    of all the sample's reward. No group is needed, so one sample a task is enough.
    """
    advantages, immediate = np.zeros(len(steps.policy)), token_rewards(steps)
    for reward, start, count in zip(steps.rewards, steps.starts, steps.counts, strict=True):
        ahead = float(reward)
        for t in range(start + count - 1, start - 1, -1):
            advantages[t] = ahead = ahead + immediate[t]
            ahead *= gamma
    return whitened(advantages)


@needs(teacher=True)
def teacher_gap(steps: Trajectories, *, scale: float = 1.0) -> Floats:
    """Return ``scale · (log teacher - log policy)`` at each token, for on-policy distillation (GKD,
    https://arxiv.org/abs/2306.13649; https://thinkingmachines.ai/blog/on-policy-distillation).

    With ``scale`` 1 it is minus a one-sample estimate of the reverse KL, which distillation minimizes. Rewards are not
    used.

    Raises RuntimeError without a teacher's log-probabilities.
    """
    if steps.teacher is None:
        raise RuntimeError("distillation needs a teacher")
    return scale * reverse_kl_advantages(steps.policy, steps.teacher)


def reverse_kl_advantages(policy: Floats, teacher: Floats) -> Floats:
    """Return ``log teacher - log policy`` [M]: as advantages, the policy gradient of minus KL(policy ‖ teacher)."""
    gap: Floats = teacher - policy
    return gap


def token_rewards(steps: Trajectories) -> Floats:
    """Return what each token earns by itself, [M]: minus its penalty, and the reward of the turn that it ends."""
    rewards: Floats = -steps.penalties
    if steps.turns is not None:
        known = ~np.isnan(steps.turns.rewards)
        rewards[(steps.turns.starts + steps.turns.counts - 1)[known]] += steps.turns.rewards[known]
    return rewards


@needs(teacher=True)
def teacher_jsd(steps: Trajectories, *, beta: float = 0.5, scale: float = 1.0) -> Floats:
    """Return ``scale · (1 - beta) · log(1 - beta + beta · teacher/policy)`` at each token, for distillation by the
    generalized Jensen-Shannon divergence (:func:`jsd_advantages`). Rewards are not used.

    Raises RuntimeError without a teacher's log-probabilities.
    """
    if steps.teacher is None:
        raise RuntimeError("distillation needs a teacher")
    return scale * jsd_advantages(steps.policy, steps.teacher, beta=beta)


def jsd_advantages(policy: Floats, teacher: Floats, *, beta: float = 0.5) -> Floats:
    """Return ``(1 - beta) · log(1 - beta + beta · teacher/policy)`` [M]: as advantages, the policy gradient of minus
    the generalized Jensen-Shannon divergence (GKD, https://arxiv.org/abs/2306.13649, equation 1).

    JSD(beta) is the f-divergence ``E_policy[f(r)]`` with ``r = teacher/policy`` and ``f(r) = beta · r · log(r/m) - (1 -
    beta) · log m``, ``m = beta · r + 1 - beta``. Its gradient is ``E_policy[(f(r) - r · f'(r)) · ∇log policy]``, and
    ``f(r) - r · f'(r) = -(1 - beta) · log m``.
    """
    log_ratios = np.clip(teacher - policy, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    gap: Floats = (1 - beta) * np.log1p(beta * np.expm1(log_ratios))
    return gap
