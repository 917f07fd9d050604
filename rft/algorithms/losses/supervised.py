"""Losses of demonstrations. Plain imitation is ``reinforce`` with advantages of 1."""

from __future__ import annotations

import torch

from rft.algorithms.inputs import TokenLoss, Tokens, importance_ratio, needs


@needs(vanishes=True)
def chord(tokens: Tokens) -> TokenLoss:
    """``-A · stop_gradient(p · (1 - p)) · log p``: CHORD-φ (https://arxiv.org/abs/2508.11408).

    Tokens that the policy already writes, and those that are so unlike it that they would tear it apart, weigh little.
    """
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    probability = tokens.logprobs.detach().exp()
    weight = probability * (1 - probability) * tokens.advantages
    return TokenLoss(-weight * tokens.logprobs, ratio, torch.zeros_like(ratio, dtype=torch.bool))
