"""Variants of GSPO, DPO and distillation, written from their papers as in :mod:`papers`."""

from __future__ import annotations

import math

import papers
import torch
from papers import Step
from torch import Tensor


def gspo_token(step: Step) -> Tensor:
    """2507.18071 equations 13 and 14: s_t = sg[s] · π_t / sg[π_t], clipped token by token."""
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            own = torch.zeros((), dtype=torch.float64)
            s = math.exp(sum(float(p.detach()) - q for p, q in zip(seq.logp, seq.mu, strict=True)) / len(seq))
            for logp in seq.logp:
                ratio = s * torch.exp(logp) / math.exp(float(logp.detach()))
                own = own + papers.ppo_term(ratio, papers.grpo_advantage(group, seq), 3e-4, 4e-4)
            total, answers = total - own / len(seq), answers + 1
    return total / answers


def gmpo(step: Step) -> Tensor:
    """2507.20673: the geometric mean of min(ρA, clip(ρ)A) in absolute value, with the sign of A."""
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            a = papers.grpo_advantage(group, seq)
            product = torch.ones((), dtype=torch.float64)
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                ratio, sign = torch.exp(logp - mu), math.copysign(1.0, a)
                bounded = papers.clip(ratio, math.exp(-0.4), math.exp(0.4))
                product = product * papers.smaller(ratio * sign, bounded * sign).abs()
            total, answers = total - a * product ** (1 / len(seq)), answers + 1
    return total / answers


def dpo(step: Step, kind: str, beta: float, by_length: bool) -> Tensor:
    losses = []
    for group in step:
        chosen, rejected = max(group, key=lambda s: s.reward), min(group, key=lambda s: s.reward)
        if chosen.reward == rejected.reward:
            continue
        h = [(sum(s.logp) - sum(s.ref)) / (len(s) if by_length else 1) for s in (chosen, rejected)]
        gap = h[0] - h[1]
        if kind == "hinge":
            losses.append(papers.larger(1 - beta * gap, torch.zeros((), dtype=torch.float64)))
        elif kind == "ipo":
            losses.append((gap - 1 / (2 * beta)) ** 2)
        else:
            losses.append(torch.log(1 + torch.exp(-beta * gap)))
    return sum(losses) / len(losses)
