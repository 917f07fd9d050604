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


def gdpo(step: Step, weights: dict[str, float], whiten: bool = True) -> Tensor:
    """2601.05242: each reward is normalized in its group, their weighted sum over the batch. Missing rewards are left
    out, and what the names do not explain is a reward too."""
    rows: list[tuple[float, papers.Seq]] = []
    for group in step:
        rest = [s.reward - sum(weights[name] * value for name, value in s.terms.items()) for s in group]
        for i, seq in enumerate(group):
            total = (rest[i] - papers.mean(rest)) / (papers.deviation(rest) + 1e-6)
            for name, value in seq.terms.items():
                others = [s.terms[name] for s in group if name in s.terms]
                total += weights[name] * (value - papers.mean(others)) / (papers.deviation(others) + 1e-6)
            rows.append((total, seq))
    numbers = [a for a, _ in rows]
    m, d = (papers.mean(numbers), papers.deviation(numbers) + 1e-6) if whiten else (0.0, 1.0)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for advantage, seq in rows:
        for logp, mu in zip(seq.logp, seq.mu, strict=True):
            total, tokens = total - papers.ppo_term(torch.exp(logp - mu), (advantage - m) / d, 0.2, 0.2), tokens + 1
    return total / tokens


def luffy(step: Step, gamma: float = 0.1) -> Tensor:
    """2504.14945: one group of demonstrations and rollouts, one mean over all their tokens, f(x) = x / (x + γ) of the
    policy's probability for demonstrations (the expert's is taken as 1), PPO's clip for rollouts."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = papers.grpo_advantage(group, seq)
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                if seq.demonstration:
                    total = total - torch.exp(logp) / (torch.exp(logp) + gamma) * advantage
                else:
                    total = total - papers.ppo_term(torch.exp(logp - mu), advantage, 0.2, 0.2)
                tokens += 1
    return total / tokens


def taught(step: Step, coef: float, term: str) -> Tensor:
    """GRPO with a teacher: the gradient of -KL(π ‖ teacher) or of -JSD as advantage of each token (MiMo-V2-Flash,
    2601.02780), or the k2 estimate of the reverse KL in the loss (KDRL, 2506.02208). Experts' tokens have none."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            for t, (logp, mu) in enumerate(zip(seq.logp, seq.mu, strict=True)):
                advantage = papers.grpo_advantage(group, seq)
                p, q = math.exp(seq.start[t]), math.exp(seq.teacher[t])
                if term == "gap":
                    advantage += coef * math.log(q / p)
                if term == "jsd":
                    # -(f(r) - r f'(r)) with f(r) = r/2 log(r/m) - 1/2 log m and m = (r + 1)/2, by finite differences.
                    f = lambda r: r / 2 * math.log(r / ((r + 1) / 2)) - math.log((r + 1) / 2) / 2  # noqa: E731
                    r, h = q / p, 1e-6 * q / p
                    advantage -= coef * (f(r) - r * (f(r + h) - f(r - h)) / (2 * h))
                total = total - papers.ppo_term(torch.exp(logp - mu), advantage, 0.2, 0.2)
                if term == "k2":
                    total = total + coef * (logp - seq.teacher[t]) ** 2 / 2
                tokens += 1
    return total / tokens
