"""Importance weights between the trainer's and the sampler's log-probabilities of the same tokens.

They differ although the weights are the same (other kernels, other precision), and more so when the weights are newer.
Pure functions: log-ratios [N] of trainer (as the step began) over sampler in, weights [N] out, no gradient. The ratio
is each token's own, or the whole sequence's at each of its tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.inputs import MAX_LOG_RATIO


def untruncated(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """``ratio``: decoupled PPO (https://arxiv.org/abs/2110.00641): the clip is around the policy as the
    step began, the data is the sampler's."""
    return _ratio(log_ratios)


def truncated(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """``min(ratio, high)``: truncated importance sampling (Yao et al. 2025, https://fengyao.notion.site/off-policy-rl)."""
    return _ratio(log_ratios).clamp(max=high)


def masked(log_ratios: Tensor, *, low: float, high: float) -> Tensor:
    """``ratio`` within [low, high], else 0: masked importance sampling (IcePop, https://arxiv.org/abs/2510.18855)
    : what the two engines disagree on too much teaches nothing."""
    ratio = _ratio(log_ratios)
    return torch.where((ratio >= low) & (ratio <= high), ratio, torch.zeros_like(ratio))


def _ratio(log_ratios: Tensor) -> Tensor:
    return torch.exp(log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
