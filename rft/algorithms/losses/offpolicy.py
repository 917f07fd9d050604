"""Policy gradients for samples that another policy, or an expert, wrote.

They take no ratios, truncated or masked ones, or are regularized towards the policy that sampled. π is the policy now,
μ the old one, ``ratio`` is π over μ for a token, A is the token's advantage.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rft.algorithms.inputs import TokenBatch, TokenLoss, importance_ratio, needs
from rft.algorithms.losses.clipping import clipped


@needs(vanishes=True)
def reinforce(tokens: TokenBatch) -> TokenLoss:
    """Compute ``-A · logprob``: REINFORCE (Williams 1992), without ratios.

    With advantages of 1 it is the negative log-likelihood of supervised fine-tuning. With the advantage ``asymmetric``
    it is AsymRE (https://arxiv.org/abs/2506.20520).
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    return TokenLoss(-tokens.advantages * tokens.logprobs, ratio, _nowhere(ratio))


@needs(vanishes=True)
def chord(tokens: TokenBatch) -> TokenLoss:
    """Compute ``-A · stop_gradient(p · (1 - p)) · log p`` with the policy's probability p of the token: CHORD-φ
    (https://arxiv.org/abs/2508.11408), for demonstrations.

    Tokens that the policy already writes weigh little. So do tokens that are so unlike it that they would disrupt it.
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    probability = tokens.logprobs.detach().exp()
    weight = probability * (1 - probability) * tokens.advantages
    return TokenLoss(-weight * tokens.logprobs, ratio, _nowhere(ratio))


@needs(vanishes=True, demonstrations=True)
def luffy(
    tokens: TokenBatch,
    *,
    gamma: float = 0.1,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> TokenLoss:
    """Compute ``-A · p / (p + gamma)`` for demonstrations and PPO's clipped surrogate for rollouts: LUFFY's mixed GRPO
    with policy shaping (https://arxiv.org/abs/2504.14945).

    p is the policy's probability of the expert's token. It is the ratio to an expert whose probabilities are taken as
    1, as in the paper's experiments, and has no clip. p / (p + gamma) is steepest for improbable tokens, so that they
    are learned too. A compares demonstrations and rollouts of one group.
    """
    own = clipped(tokens, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    if tokens.demonstrated is None:
        return own
    expert = tokens.spread(tokens.demonstrated)
    probability = tokens.logprobs.exp()
    shaped = -probability / (probability + gamma) * tokens.advantages
    return TokenLoss(
        torch.where(expert, shaped, own.loss),
        torch.where(expert, torch.ones_like(own.ratio), own.ratio),
        own.clipped & ~expert,
    )


@needs(vanishes=True)
def topr(tokens: TokenBatch) -> TokenLoss:
    """Compute ``-w · A · logprob`` with w = 1 for A ≥ 0, else w = ``min(π(y)/μ(y), 1)`` of the whole sequence y: TOPR
    (https://arxiv.org/abs/2503.14286).

    Good samples are imitated at full weight, whatever wrote them. Bad samples are pushed down only as far as the policy
    itself would still write them.
    """
    ratio = importance_ratio(tokens.sums(tokens.logprobs.detach()), tokens.sums(tokens.old))
    bad = tokens.advantages < 0
    spread = tokens.spread(ratio)
    weight = torch.where(bad, spread.clamp(max=1.0), torch.ones_like(spread))
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, spread, bad & (spread > 1))


@needs(vanishes=True)
def rec(
    tokens: TokenBatch,
    *,
    clip: Literal["one_side", "two_side", "ring", "none"] = "one_side",
    importance: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ring_low: float = 0.6,
    ring_high: float = 2.0,
) -> TokenLoss:
    """Compute ``-mask · A · logprob``, with ``importance`` also times ``stop_gradient(ratio)``: REC, REINFORCE with
    clipping as regularization (https://arxiv.org/abs/2509.24203).

    The mask is 0 or 1. It is 1 in these cases:

    - ``one_side``: A ≥ 0 and ratio ≤ 1 + clip_high, or A ≤ 0 and ratio ≥ 1 - clip_low.
    - ``two_side``: 1 - clip_low ≤ ratio ≤ 1 + clip_high.
    - ``ring``: as ``two_side``, or A ≥ 0 and ratio ≤ 1 - ring_low, or A ≤ 0 and ratio ≥ 1 + ring_high. Far outside the
      clip range, the gradient is kept where it leads back to the range.
    - ``none``: always.

    ``one_side`` with ``importance`` has PPO's gradient. The paper finds that the clip, and not the ratio, keeps
    off-policy training stable.
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    good, bad = tokens.advantages >= 0, tokens.advantages <= 0
    below_high, above_low = ratio <= 1 + clip_high, ratio >= 1 - clip_low
    kept = {
        "one_side": (below_high & good) | (above_low & bad),
        "two_side": below_high & above_low,
        "ring": (below_high & above_low) | (good & (ratio <= 1 - ring_low)) | (bad & (ratio >= 1 + ring_high)),
        "none": torch.ones_like(good),
    }[clip]
    weight = kept * (ratio if importance else torch.ones_like(ratio))
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, ratio, ~kept)


def opmd(tokens: TokenBatch, *, tau: float = 0.1) -> TokenLoss:
    """Compute ``-A · log π(y) + tau/2 · (log π(y) - log μ(y))²`` for whole sequences y: online policy mirror descent as
    in Kimi k1.5 (https://arxiv.org/abs/2501.12599, equation 3), with ``A = r - mean(group)``.

    The squared term is a KL regularization towards the policy that sampled, so old samples are allowed. Each token
    carries its sequence's loss.
    """
    now, old = tokens.sums(tokens.logprobs), tokens.sums(tokens.old)
    loss = -tokens.means(tokens.advantages) * now + 0.5 * tau * (now - old) ** 2
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    return TokenLoss(tokens.spread(loss), ratio, _nowhere(ratio))


def _nowhere(ratio: Tensor) -> Tensor:
    return torch.zeros_like(ratio, dtype=torch.bool)
