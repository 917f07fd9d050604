"""Computes importance weights of the trainer's log-probabilities over the sampler's for the same tokens.

Trainer and sampler differ even with the same weights (other kernels, other precision), and more so when the trainer's
weights are newer.

All functions are pure. They take float log-ratios [N], the trainer's log-probability as the step began minus the
sampler's, and return weights [N] without gradient. A log-ratio is that of the token, or that of its whole sequence
repeated at each token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.inputs import MAX_LOG_RATIO


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
    ratio = _ratio(log_ratios)
    return torch.where((ratio >= low) & (ratio <= high), ratio, torch.zeros_like(ratio))


def _ratio(log_ratios: Tensor) -> Tensor:
    return torch.exp(log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
