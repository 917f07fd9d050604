"""Losses in which tokens of the whole step compete, written from their papers as in :mod:`papers`."""

from __future__ import annotations

import math

import papers
import torch
from papers import Step
from torch import Tensor


def high_entropy(step: Step, share: float) -> Tensor:
    """2506.01939: an indicator of H ≥ threshold in DAPO's objective, the threshold that ``share`` of tokens exceed."""
    entropies = sorted(float(h.detach()) for seq in papers.all_sequences(step) for h in seq.entropy)
    place = (1 - share) * (len(entropies) - 1)
    below, above = entropies[math.floor(place)], entropies[math.ceil(place)]
    threshold = below + (place - math.floor(place)) * (above - below)
    return papers.grpo(step, kept=lambda seq, t, a: float(seq.entropy[t].detach()) >= threshold)


def covariances(step: Step) -> dict[tuple[int, int], float]:
    """2505.22617: (A - mean A) · (log π - mean log π) by (sequence's identity, token), means over the step's tokens."""
    rows = [
        (id(seq), t, papers.grpo_advantage(group, seq), float(logp.detach()))
        for group in step
        for seq in group
        for t, logp in enumerate(seq.logp)
    ]
    advantage, logprob = papers.mean([row[2] for row in rows]), papers.mean([row[3] for row in rows])
    return {(seq, t): (a - advantage) * (logp - logprob) for seq, t, a, logp in rows}


def clip_cov(step: Step, low: float, high: float) -> Tensor:
    """With so large a share that all tokens within the bounds are left out."""
    found = covariances(step)
    return papers.grpo(step, kept=lambda seq, t, a: not low <= found[id(seq), t] <= high)


def kl_cov(step: Step, share: float, coef: float) -> Tensor:
    found = covariances(step)
    highest = sorted(found, key=lambda key: -found[key])[: math.ceil(share * len(found))]
    total = torch.zeros((), dtype=torch.float64)
    for group in step:
        for seq in group:
            advantage = papers.grpo_advantage(group, seq)
            for t, (logp, mu) in enumerate(zip(seq.logp, seq.mu, strict=True)):
                total = total - torch.exp(logp - mu) * advantage
                if (id(seq), t) in highest:
                    total = total + coef * abs(logp - mu)
    return total / len(found)
