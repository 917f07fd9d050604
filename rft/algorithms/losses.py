"""Policy-gradient losses of single tokens.

Pure functions over flat tensors with one element for each token the policy wrote (length N, whatever sequence
it belongs to); how tokens are averaged is decided elsewhere (:mod:`rft.algorithms.aggregation`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""exp(20) is beyond any clip range, yet far from overflow in float32."""


class TokenLoss(NamedTuple):
    """What a loss says about each token; all [N]."""

    loss: Tensor
    """To be weighted, summed and minimised."""
    ratio: Tensor
    """Probability now over probability when sampled; without gradient."""
    clipped: Tensor
    """bool: the clip took this token's gradient away."""


def importance_ratio(logprobs: Tensor, behaviour: Tensor) -> Tensor:
    """``exp(logprobs - behaviour)`` for log-probabilities [N] now and of the sampler."""
    return torch.exp(torch.clamp(logprobs - behaviour, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped(
    logprobs: Tensor,
    behaviour: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> TokenLoss:
    """PPO's clipped surrogate (https://arxiv.org/abs/1707.06347) with the behaviour policy as the old one.

    ``-min(ratio · A, clip(ratio, 1 - clip_low, 1 + clip_high) · A)``, and with ``dual_clip`` for A < 0 the larger of
    that and ``dual_clip · A`` within the minus (https://arxiv.org/abs/1912.09729): nothing else bounds how hard a
    token is pushed down that has become much likelier than it was when it was sampled.
    """
    ratio = importance_ratio(logprobs, behaviour)
    free = ratio * advantages
    bounded = torch.clamp(ratio, 1 - clip_low, 1 + clip_high) * advantages
    gain = torch.minimum(free, bounded)
    no_gradient = bounded < free
    if dual_clip is not None:
        far = (advantages < 0) & (ratio > dual_clip)
        gain = torch.where(far, dual_clip * advantages, gain)
        no_gradient = no_gradient | far
    return TokenLoss(-gain, ratio.detach(), no_gradient.detach())


def reinforce(
    logprobs: Tensor,
    behaviour: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> TokenLoss:
    """``-A · logprob``: the plain policy gradient, right only for on-policy data. Nothing is clipped.

    With every advantage 1 it is the negative log-likelihood of supervised fine-tuning.
    """
    ratio = importance_ratio(logprobs.detach(), behaviour)
    return TokenLoss(-advantages * logprobs, ratio, torch.zeros_like(ratio, dtype=torch.bool))
