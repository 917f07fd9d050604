"""Losses from preferences: no ratios to a sampler, but to the initial weights.

Each token carries its sequence's loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rft.algorithms.inputs import TokenLoss, Tokens, needs


@needs(reference=True, pairs=True)
def dpo(tokens: Tokens, *, beta: float = 0.1, label_smoothing: float = 0.0) -> TokenLoss:
    """``-log σ(beta · (h(chosen) - h(rejected)))``, h(y) = ``log π(y) - log π_ref(y)``: DPO
    (https://arxiv.org/abs/2305.18290, equation 7).

    Chosen is the higher reward of the two. With ``label_smoothing`` e it is ``-(1-e) log σ(z) - e log σ(-z)``
    (conservative DPO, https://ericmitchell.ai/cdpo.pdf).
    """
    gaps = _gaps(tokens)
    # The two of a group, whichever way round; the sort is stable.
    pairs = torch.argsort(tokens.groups, stable=True).reshape(-1, 2)
    first_chosen = tokens.rewards[pairs[:, 0]] >= tokens.rewards[pairs[:, 1]]
    difference = gaps[pairs[:, 0]] - gaps[pairs[:, 1]]
    margin = beta * torch.where(first_chosen, difference, -difference)
    loss = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    both = torch.zeros_like(gaps).index_add(0, pairs.flatten(), loss.repeat_interleave(2))
    return _of_sequences(tokens, both)


@needs(reference=True, baseline=True)
def kto(
    tokens: Tokens, *, beta: float = 0.1, threshold: float = 0.0, desirable: float = 1.0, undesirable: float = 1.0
) -> TokenLoss:
    """``desirable · (1 - σ(beta · (h(y) - z)))`` for rewards above ``threshold``, else
    ``undesirable · (1 - σ(beta · (z - h(y))))``, h as in DPO: KTO (https://arxiv.org/abs/2402.01306, equation 8).

    z (``Tokens.baseline``) is ``max(0, mean of h)`` over prompts with the answers to other prompts of the step, an
    estimate of KL(π ‖ π_ref) without gradient.
    """
    gaps = _gaps(tokens)
    good = tokens.rewards > threshold
    liking = torch.where(good, gaps - tokens.baseline, tokens.baseline - gaps)
    weight = torch.where(good, desirable, undesirable).to(gaps.dtype)
    return _of_sequences(tokens, weight * (1 - torch.sigmoid(beta * liking)))


def _gaps(tokens: Tokens) -> Tensor:
    """[S]: log π(y) - log π_ref(y)."""
    if tokens.reference is None:
        raise RuntimeError("a loss from preferences needs the reference's log-probabilities")
    return tokens.sums(tokens.logprobs - tokens.reference)


def _of_sequences(tokens: Tokens, loss: Tensor) -> TokenLoss:
    ratio = torch.exp((tokens.logprobs - tokens.old).detach().clamp(-20, 20))
    return TokenLoss(tokens.spread(loss), ratio, torch.zeros_like(ratio, dtype=torch.bool))
