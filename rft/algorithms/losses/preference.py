"""Losses from preferences. They compare the policy with the initial weights instead of the sampler.

For a sequence y, ``h(y) = log π(y) - log π_ref(y)`` with the policy π and the initial weights π_ref. Each token carries
its sequence's loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from rft.algorithms.inputs import TokenBatch, TokenLoss, importance_ratio, needs


@needs(reference=True, pairs=True)
def dpo(
    tokens: TokenBatch,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    kind: Literal["sigmoid", "hinge", "ipo"] = "sigmoid",
    length_normalized: bool = False,
) -> TokenLoss:
    """Compute ``-log σ(z)`` with ``z = beta · (h(chosen) - h(rejected))``: DPO (https://arxiv.org/abs/2305.18290,
    equation 7).

    With ``kind = "hinge"`` it is ``max(0, 1 - z)`` (SLiC, https://arxiv.org/abs/2305.10425, on h as in
    https://arxiv.org/abs/2309.06657), with ``"ipo"`` it is ``(z / beta - 1 / (2 · beta))²``
    (https://arxiv.org/abs/2310.12036, equation 17). With ``length_normalized`` h is divided by the sequence's number of
    tokens (https://arxiv.org/abs/2411.15124).

    The chosen sequence is the one of the pair with the higher reward. With ``label_smoothing`` e the loss is
    ``-(1 - e) · log σ(z) - e · log σ(-z)`` (conservative DPO, https://ericmitchell.ai/cdpo.pdf).

    Raises RuntimeError without the reference's log-probabilities.
    """
    if kind != "sigmoid" and label_smoothing:
        raise ValueError(f"label_smoothing is for kind = 'sigmoid', not '{kind}'")
    log_ratios = _reference_log_ratios(tokens)
    if length_normalized:
        log_ratios = log_ratios / tokens.sums(torch.ones_like(tokens.logprobs)).clamp(min=1)
    # Both sequences of a pair have the same group, in either order. A stable sort puts them side by side.
    pairs = torch.argsort(tokens.groups, stable=True).reshape(-1, 2)
    first_chosen = tokens.rewards[pairs[:, 0]] >= tokens.rewards[pairs[:, 1]]
    difference = log_ratios[pairs[:, 0]] - log_ratios[pairs[:, 1]]
    margin = beta * torch.where(first_chosen, difference, -difference)
    loss = {
        "sigmoid": lambda: -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin),
        "hinge": lambda: relu(1 - margin),
        "ipo": lambda: (margin / beta - 1 / (2 * beta)) ** 2,
    }[kind]()
    both = torch.zeros_like(log_ratios).index_add(0, pairs.flatten(), loss.repeat_interleave(2))
    return _at_tokens(tokens, both)


@needs(reference=True, baseline=True)
def kto(
    tokens: TokenBatch, *, beta: float = 0.1, threshold: float = 0.0, desirable: float = 1.0, undesirable: float = 1.0
) -> TokenLoss:
    """Compute KTO's loss (https://arxiv.org/abs/2402.01306, equation 8).

    For rewards above ``threshold`` it is ``desirable · (1 - σ(beta · (h(y) - z)))``, otherwise
    ``undesirable · (1 - σ(beta · (z - h(y))))``.

    The reference point z (:attr:`TokenBatch.baseline`) is ``max(0, mean of h)`` over the step's prompts, each with the
    answer to another prompt. It estimates KL(π ‖ π_ref) and has no gradient.

    Raises RuntimeError without the reference's log-probabilities.
    """
    log_ratios = _reference_log_ratios(tokens)
    good = tokens.rewards > threshold
    margin = torch.where(good, log_ratios - tokens.baseline, tokens.baseline - log_ratios)
    weight = torch.where(good, desirable, undesirable).to(log_ratios.dtype)
    return _at_tokens(tokens, weight * (1 - torch.sigmoid(beta * margin)))


def _reference_log_ratios(tokens: TokenBatch) -> Tensor:
    """Return h(y) of each sequence, [S]."""
    if tokens.reference is None:
        raise RuntimeError("a loss from preferences needs the reference's log-probabilities")
    return tokens.sums(tokens.logprobs - tokens.reference)


def _at_tokens(tokens: TokenBatch, loss: Tensor) -> TokenLoss:
    ratio = importance_ratio(tokens.logprobs.detach(), tokens.old)
    return TokenLoss(tokens.spread(loss), ratio, torch.zeros_like(ratio, dtype=torch.bool))
