"""Computes importance weights of the trainer's log-probabilities over the sampler's for the same tokens.

Trainer and sampler differ even with the same weights (other kernels, other precision), and more so when the trainer's
weights are newer.

All functions are pure. They take float log-ratios [N], the trainer's log-probability as the step began minus the
sampler's, and return weights [N] without gradient. A log-ratio is that of the token, or that of its whole sequence
repeated at each token (:func:`at_level`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rft.algorithms.inputs import MAX_LOG_RATIO, TokenBatch

Level = Literal["token", "sequence", "geometric"]


def at_level(tokens: TokenBatch, log_ratios: Tensor, level: Level) -> Tensor:
    """Return the log-ratios [N] of ``level``: of the tokens themselves, the sum over their sequence, or its mean.

    The mean is the logarithm of the ratios' geometric mean. It does not grow with the length of the sequence.
    """
    if level == "token":
        return log_ratios
    return tokens.spread(tokens.sums(log_ratios) if level == "sequence" else tokens.means(log_ratios))


def untruncated(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """Return ``ratio``: decoupled PPO (https://arxiv.org/abs/2110.00641).

    The loss clips around the policy as the step began; this weight accounts for the data being the sampler's.
    """
    return _ratio(log_ratios)


def truncated(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """Return ``min(ratio, high)``: truncated importance sampling (Yao et al. 2025,
    https://fengyao.notion.site/off-policy-rl)."""
    return _ratio(log_ratios).clamp(max=high)


def masked(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """Return ``ratio`` if it is within [low, high], else 0: masked importance sampling (IcePop,
    https://arxiv.org/abs/2510.18855).

    Tokens on which trainer and sampler disagree too much are not learned from.
    """
    return _ratio(log_ratios) * accepted(log_ratios, low=low, high=high)


def accepted(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """Return 1 where the ratio is within [low, high], else 0: rejection sampling, by token or by sequence
    (https://richardli.xyz/post/rl-collapse-part3: Seq-MIS and, by the geometric mean, Geo-RS)."""
    ratio = _ratio(log_ratios)
    return ((ratio >= low) & (ratio <= high)).to(ratio.dtype)


def off_policy_mask(tokens: TokenBatch, logprobs: Tensor, sampler: Tensor, *, delta: float) -> Tensor:
    """Return 0 for tokens with A < 0 in a sequence whose mean of ``log μ - log π`` exceeds ``delta``, else 1.

    This is off-policy sequence masking (DeepSeek-V3.2, https://arxiv.org/abs/2512.02556, equation 9).

    Bad answers that the policy would hardly write any more teach it little and disturb it most.

    Args:
        logprobs: of the policy π now, [N].
        sampler: of the sampler μ, [N].
        delta: nats.
    """
    divergence = tokens.spread(tokens.means(sampler - logprobs.detach()))
    return (~((tokens.advantages < 0) & (divergence > delta))).to(logprobs.dtype)


def _ratio(log_ratios: Tensor) -> Tensor:
    return torch.exp(log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
