"""Policy gradients for data of another policy: without ratios, with tapered ones, or regularised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rft.algorithms.inputs import TokenLoss, Tokens, importance_ratio, needs


@needs(vanishes=True)
def reinforce(tokens: Tokens) -> TokenLoss:
    """``-A · logprob``: REINFORCE (Williams 1992), without ratios.

    With advantages of 1 it is the negative log-likelihood of supervised fine-tuning, with ``asymmetric`` ones it is
    AsymRE (https://arxiv.org/abs/2506.20520).
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    return TokenLoss(-tokens.advantages * tokens.logprobs, ratio, _nowhere(ratio))


@needs(vanishes=True)
def topr(tokens: Tokens) -> TokenLoss:
    """``-w · A · logprob``, w = 1 where A ≥ 0, else ``min(π(y)/μ(y), 1)`` of the whole sequence: TOPR
    (https://arxiv.org/abs/2503.14286).

    What was good is imitated whoever wrote it; what was bad is pushed down no further than the policy still writes it.
    """
    ratio = importance_ratio(tokens.sums(tokens.logprobs.detach()), tokens.sums(tokens.old))
    bad = tokens.advantages < 0
    spread = tokens.spread(ratio)
    weight = torch.where(bad, spread.clamp(max=1.0), torch.ones_like(spread))
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, spread, bad & (spread > 1))


@needs(vanishes=True)
def rec(
    tokens: Tokens,
    *,
    clip: Literal["one_side", "two_side", "ring", "none"] = "one_side",
    importance: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ring_low: float = 0.6,
    ring_high: float = 2.0,
) -> TokenLoss:
    """``-mask · A · logprob``, and with ``importance`` times the ratio: REC, REINFORCE with clipping as regularisation
    (https://arxiv.org/abs/2509.24203).

    The mask is 1 where the ratio is: ``one_side``: at most 1 + clip_high if A > 0, at least 1 - clip_low if A < 0;
    ``two_side``: within both; ``ring``: within both, or beyond 1 - ring_low (A > 0) or 1 + ring_high (A < 0) where
    the gradient leads back. One-sided with ratio is PPO's gradient; the paper's point is that the clip, not
    the ratio, is what holds off-policy training.
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    good, bad = tokens.advantages >= 0, tokens.advantages <= 0
    above, below = ratio <= 1 + clip_high, ratio >= 1 - clip_low
    kept = {
        "one_side": (above & good) | (below & bad),
        "two_side": above & below,
        "ring": (above & below) | (good & (ratio <= 1 - ring_low)) | (bad & (ratio >= 1 + ring_high)),
        "none": torch.ones_like(good),
    }[clip]
    weight = kept * (ratio if importance else torch.ones_like(ratio))
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, ratio, ~kept)


def opmd(tokens: Tokens, *, tau: float = 0.1) -> TokenLoss:
    """``-A · log π(y) + tau/2 · (log π(y) - log π_old(y))²`` of whole sequences: online policy mirror descent as in
    Kimi k1.5 (https://arxiv.org/abs/2501.12599, equation 3), with A = r - mean(group).

    The squared term is its KL regularisation towards the policy that sampled, so the data may be old. Each token
    carries its sequence's loss.
    """
    now, old = tokens.sums(tokens.logprobs), tokens.sums(tokens.old)
    loss = -tokens.means(tokens.advantages) * now + 0.5 * tau * (now - old) ** 2
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    return TokenLoss(tokens.spread(loss), ratio, _nowhere(ratio))


def _nowhere(ratio: Tensor) -> Tensor:
    return torch.zeros_like(ratio, dtype=torch.bool)
