"""Losses that keep the policy near the old one: they clip or gate the ratio of the two.

``ratio`` is the policy's probability of a token now over that of the old policy, A is the token's advantage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.inputs import MAX_LOG_RATIO, TokenBatch, TokenLoss, importance_ratio, needs


@needs(vanishes=True)
def clipped(
    tokens: TokenBatch, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> TokenLoss:
    """Compute PPO's clipped surrogate (https://arxiv.org/abs/1707.06347, equation 7).

    The loss is ``-min(ratio · A, clip(ratio, 1 - clip_low, 1 + clip_high) · A)``. A ``clip_high`` above ``clip_low`` is
    DAPO's clip-higher (https://arxiv.org/abs/2503.14476, equation 8).

    With ``dual_clip`` c, for A < 0 the loss is ``-max(min(ratio · A, clip(…) · A), c · A)``, so at most c · |A|
    (https://arxiv.org/abs/1912.09729). Without it the loss of such a token has no bound as its ratio grows.

    Args:
        dual_clip: greater than 1; None for no second clip.
    """
    ratio = importance_ratio(tokens.logprobs, tokens.old)
    gain, no_gradient = _clip(ratio, tokens.advantages, clip_low, clip_high)
    if dual_clip is not None:
        far = (tokens.advantages < 0) & (ratio > dual_clip)
        gain = torch.where(far, dual_clip * tokens.advantages, gain)
        no_gradient = no_gradient | far
    return TokenLoss(-gain, ratio.detach(), no_gradient.detach())


@needs(vanishes=True)
def gspo(tokens: TokenBatch, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> TokenLoss:
    """Compute the clipped surrogate of whole sequences: GSPO (https://arxiv.org/abs/2507.18071, equations 5 and 7).

    The ratio is ``exp(mean over the sequence of (logprob - old))``, so its clip range is far smaller than a token's.
    Each token carries its sequence's loss.
    """
    ratio = importance_ratio(tokens.means(tokens.logprobs), tokens.means(tokens.old))
    gain, no_gradient = _clip(ratio, tokens.means(tokens.advantages), clip_low, clip_high)
    return TokenLoss(-tokens.spread(gain), tokens.spread(ratio.detach()), tokens.spread(no_gradient.detach()))


@needs(vanishes=True)
def gspo_token(tokens: TokenBatch, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> TokenLoss:
    """Compute GSPO with a gradient by token: GSPO-token (https://arxiv.org/abs/2507.18071, equations 13 and 14).

    The ratio of a token is ``stop_gradient(s) · π/stop_gradient(π)`` with the sequence's ratio s of :func:`gspo`. It
    has the value of s, but each token keeps its own advantage and gradient. With equal advantages in a sequence and
    ``sequence_mean``, loss and gradient are those of :func:`gspo`.
    """
    sequence = importance_ratio(tokens.means(tokens.logprobs), tokens.means(tokens.old)).detach()
    ratio = tokens.spread(sequence) * torch.exp(tokens.logprobs - tokens.logprobs.detach())
    gain, no_gradient = _clip(ratio, tokens.advantages, clip_low, clip_high)
    return TokenLoss(-gain, ratio.detach(), no_gradient.detach())


@needs(vanishes=True)
def gmpo(tokens: TokenBatch, *, clip_low: float = 0.4, clip_high: float = 0.4) -> TokenLoss:
    """Compute ``-A · (Π_t bounded ratio)^(1/T)`` for whole sequences: GMPO (https://arxiv.org/abs/2507.20673).

    Each token's ratio is bounded to [exp(-clip_low), exp(clip_high)] on the side to which the sign of A pushes, as in
    PPO. The geometric mean is less sensitive to single ratios than GRPO's mean. Each token carries its sequence's loss.
    """
    log_ratio = torch.clamp(tokens.logprobs - tokens.old, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    positive = tokens.advantages > 0
    bounded = torch.where(positive, log_ratio.clamp(max=clip_high), log_ratio.clamp(min=-clip_low))
    ratio = torch.exp(tokens.means(bounded))
    loss = -tokens.means(tokens.advantages) * ratio
    return TokenLoss(tokens.spread(loss), log_ratio.detach().exp(), (bounded != log_ratio).detach())


@needs(vanishes=True)
def cispo(tokens: TokenBatch, *, clip_low: float = 1.0, clip_high: float = 0.28) -> TokenLoss:
    """Compute ``-stop_gradient(clip(ratio, 1 - clip_low, 1 + clip_high)) · A · logprob``: CISPO
    (https://arxiv.org/abs/2506.13585, equations 4 and 5).

    The clip bounds the weight and not the gradient, so every token keeps its gradient. As in the paper there is no
    lower clip (``clip_low`` 1).
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    weight = torch.clamp(ratio, 1 - clip_low, 1 + clip_high)
    return TokenLoss(-weight * tokens.advantages * tokens.logprobs, ratio, weight != ratio)


@needs(vanishes=True)
def sapo(tokens: TokenBatch, *, tau_positive: float = 1.0, tau_negative: float = 1.05) -> TokenLoss:
    """Compute ``-(4 / tau) · sigmoid(tau · (ratio - 1)) · A``: SAPO (https://arxiv.org/abs/2511.20347).

    A soft gate replaces the clip. ``tau`` is ``tau_positive`` for A > 0, else ``tau_negative``. At ratio 1 the slope of
    the gate is 1.
    """
    ratio = importance_ratio(tokens.logprobs, tokens.old)
    tau = torch.where(tokens.advantages > 0, tau_positive, tau_negative).to(ratio.dtype)
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    return TokenLoss(-gate * tokens.advantages, ratio.detach(), torch.zeros_like(ratio, dtype=torch.bool))


@needs(vanishes=True, covariance=True)
def kl_cov(tokens: TokenBatch, *, share: float = 2e-3, kl_coef: float = 1.0) -> TokenLoss:
    """Compute ``-ratio · A``, plus ``kl_coef · |log ratio|`` for the ``share`` of tokens with the highest covariance
    between advantage and log-probability: KL-Cov (https://arxiv.org/abs/2505.22617, section 4.2).

    The covariance is that of the policy as the step began, over the step's tokens. There is no clip. The absolute
    log-ratio is the estimate of KL(old ‖ policy) in the authors' code.

    Raises RuntimeError without the covariances' ranks.
    """
    if tokens.covariance_rank is None:
        raise RuntimeError("kl_cov needs the ranks of the tokens' covariances")
    ratio = importance_ratio(tokens.logprobs, tokens.old)
    penalty = kl_coef * (tokens.logprobs - tokens.old).abs() * (tokens.covariance_rank < share)
    return TokenLoss(penalty - ratio * tokens.advantages, ratio.detach(), torch.zeros_like(ratio, dtype=torch.bool))


def _clip(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the smaller of the unclipped and the clipped gain, and where the clip removed its gradient."""
    unclipped = ratio * advantages
    bounded = torch.clamp(ratio, 1 - low, 1 + high) * advantages
    return torch.minimum(unclipped, bounded), bounded < unclipped
