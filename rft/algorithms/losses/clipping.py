"""Losses that hold the policy near the old one by clipping or gating its ratio to it."""

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.inputs import TokenLoss, Tokens, importance_ratio, needs


@needs(vanishes=True)
def clipped(
    tokens: Tokens, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> TokenLoss:
    """PPO's clipped surrogate (https://arxiv.org/abs/1707.06347, equation 7).

    ``-min(ratio · A, clip(ratio, 1 - clip_low, 1 + clip_high) · A)``; different clips are DAPO's clip-higher
    (https://arxiv.org/abs/2503.14476, equation 8). With ``dual_clip`` for A < 0 the larger of
    that and ``dual_clip · A`` within the minus (https://arxiv.org/abs/1912.09729): nothing else bounds how hard a
    token is pushed down that has become much likelier than it was when it was sampled.
    """
    ratio = importance_ratio(tokens.logprobs, tokens.old)
    gain, no_gradient = _clip(ratio, tokens.advantages, clip_low, clip_high)
    if dual_clip is not None:
        far = (tokens.advantages < 0) & (ratio > dual_clip)
        gain = torch.where(far, dual_clip * tokens.advantages, gain)
        no_gradient = no_gradient | far
    return TokenLoss(-gain, ratio.detach(), no_gradient.detach())


@needs(vanishes=True)
def gspo(tokens: Tokens, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> TokenLoss:
    """The clipped surrogate of whole sequences: GSPO (https://arxiv.org/abs/2507.18071, equations 5 and 7).

    The ratio is ``exp(mean over the sequence of (logprob - old))``, so its clip range is far smaller than a token's.
    Each token carries its sequence's loss.
    """
    ratio = importance_ratio(tokens.means(tokens.logprobs), tokens.means(tokens.old))
    gain, no_gradient = _clip(ratio, tokens.means(tokens.advantages), clip_low, clip_high)
    return TokenLoss(-tokens.spread(gain), tokens.spread(ratio.detach()), tokens.spread(no_gradient.detach()))


@needs(vanishes=True)
def cispo(tokens: Tokens, *, clip_low: float = 1.0, clip_high: float = 0.28) -> TokenLoss:
    """``-stop_gradient(clip(ratio, 1 - clip_low, 1 + clip_high)) · A · logprob``: CISPO
    (https://arxiv.org/abs/2506.13585, equations 4 and 5).

    The weight is clipped, not the gradient: every token keeps teaching. The paper has no lower clip (``clip_low`` 1).
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    weight = torch.clamp(ratio, 1 - clip_low, 1 + clip_high)
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, ratio, weight != ratio)


@needs(vanishes=True)
def sapo(tokens: Tokens, *, tau_positive: float = 1.0, tau_negative: float = 1.05) -> TokenLoss:
    """``-(4 / tau) · sigmoid(tau · (ratio - 1)) · A``: SAPO (https://arxiv.org/abs/2511.20347).

    A soft gate instead of a clip, with a tau of its own for A > 0 and for the rest. At ratio 1 its slope is 1.
    """
    ratio = importance_ratio(tokens.logprobs, tokens.old)
    tau = torch.where(tokens.advantages > 0, tau_positive, tau_negative).to(ratio.dtype)
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    return TokenLoss(-gate * tokens.advantages, ratio.detach(), torch.zeros_like(ratio, dtype=torch.bool))


def _clip(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The pessimistic gain, and where the clip took its gradient away."""
    free = ratio * advantages
    bounded = torch.clamp(ratio, 1 - low, 1 + high) * advantages
    return torch.minimum(free, bounded), bounded < free
