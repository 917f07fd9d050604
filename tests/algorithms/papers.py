"""Each algorithm's loss, written from its paper in float64, one sequence and one token at a time.

This file shares no code with rft. ``step`` is a list of groups, a group a list of :class:`Seq`; each function returns
the loss as a scalar that carries the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Seq:
    """One sampled answer. Lists have one element for each token that the policy wrote."""

    reward: float
    logp: list[Tensor]
    """Log-probabilities of the policy, with gradient."""
    mu: list[float]
    """Log-probabilities of the sampler."""
    ref: list[float]
    """Log-probabilities of the initial weights."""
    start: list[float] = field(default_factory=list)
    """Log-probabilities of the policy as the step began."""
    teacher: list[float] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    old_values: list[float] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)
    demonstration: bool = False
    truncated: bool = False
    terms: dict[str, float] = field(default_factory=dict)
    """Rewards by name."""

    def __len__(self) -> int:
        return len(self.logp)


Step = list[list[Seq]]
Kept = Callable[[Seq, int, float], bool]
"""(sequence, token, advantage) → the token has a part in the loss."""


def all_sequences(step: Step) -> list[Seq]:
    return [s for group in step for s in group]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def deviation(numbers: list[float]) -> float:
    if len(numbers) < 2:
        return 0.0
    m = mean(numbers)
    return math.sqrt(sum((x - m) ** 2 for x in numbers) / (len(numbers) - 1))


def clip(x: Tensor, low: float, high: float) -> Tensor:
    if float(x.detach()) < low:
        return torch.tensor(low, dtype=torch.float64)
    if float(x.detach()) > high:
        return torch.tensor(high, dtype=torch.float64)
    return x


def smaller(a: Tensor, b: Tensor) -> Tensor:
    return a if float(a.detach()) <= float(b.detach()) else b


def larger(a: Tensor, b: Tensor) -> Tensor:
    return a if float(a.detach()) >= float(b.detach()) else b


def ppo_term(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    return smaller(ratio * advantage, clip(ratio, 1 - low, 1 + high) * advantage)


# ---------------------------------------------------------------- advantages


def grpo_advantage(group: list[Seq], seq: Seq) -> float:
    rewards = [s.reward for s in group]
    return (seq.reward - mean(rewards)) / (deviation(rewards) + 1e-6)


def centered(group: list[Seq], seq: Seq) -> float:
    return seq.reward - mean([s.reward for s in group])


# ---------------------------------------------------------------- policy gradients


def everything(seq: Seq, t: int, advantage: float) -> bool:
    return True


def grpo(step: Step, low: float = 0.2, high: float = 0.2, kept: Kept = everything) -> Tensor:
    """DAPO equations 8 and 12: one mean over all tokens of the batch. Those that are not ``kept`` add 0 to it."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = grpo_advantage(group, seq)
            for t, (logp, mu) in enumerate(zip(seq.logp, seq.mu, strict=True)):
                if kept(seq, t, advantage):
                    total = total - ppo_term(torch.exp(logp - mu), advantage, low, high)
                tokens += 1
    return total / tokens


def geometric_ratio(seq: Seq) -> float:
    """Geometric mean of the ratios of the policy as the step began to the sampler."""
    product = 1.0
    for start, mu in zip(seq.start, seq.mu, strict=True):
        product *= math.exp(start) / math.exp(mu)
    return product ** (1 / len(seq))


def divergence(seq: Seq) -> float:
    """DeepSeek-V3.2 equation 9: mean over the answer of log(sampler / policy)."""
    return mean([math.log(math.exp(mu) / math.exp(float(p.detach()))) for p, mu in zip(seq.logp, seq.mu, strict=True)])


def grpo_by_sequence(step: Step) -> Tensor:
    """GRPO equation 3: mean over the tokens of each answer, then over answers."""
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = grpo_advantage(group, seq)
            own = sum(ppo_term(torch.exp(p - q), advantage, 0.2, 0.2) for p, q in zip(seq.logp, seq.mu, strict=True))
            total, answers = total - own / len(seq), answers + 1
    return total / answers


def dr_grpo(step: Step, constant: int) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                total = total - ppo_term(torch.exp(logp - mu), centered(group, seq), 0.2, 0.2) / constant
            answers += 1
    return total / answers


def dapo(step: Step, limit: int, buffer: int) -> Tensor:
    """Equations 8 to 13: clip-higher, token-level loss, soft overlong punishment."""

    def punished(seq: Seq) -> float:
        if len(seq) <= limit - buffer:
            return seq.reward
        if len(seq) <= limit:
            return seq.reward + ((limit - buffer) - len(seq)) / buffer
        return seq.reward - 1

    for seq in all_sequences(step):
        seq.reward = punished(seq)
    return grpo(step, 0.2, 0.28)


def gspo(step: Step) -> Tensor:
    """Equations 5 to 7."""
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            s = torch.exp(sum(p - q for p, q in zip(seq.logp, seq.mu, strict=True)) / len(seq))
            total, answers = total - ppo_term(s, grpo_advantage(group, seq), 3e-4, 4e-4), answers + 1
    return total / answers


def cispo(step: Step) -> Tensor:
    """Equations 4 and 5, without a lower bound."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                weight = min(math.exp(float(logp.detach()) - mu), 1.28)
                total, tokens = total - weight * grpo_advantage(group, seq) * logp, tokens + 1
    return total / tokens


def sapo(step: Step) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = grpo_advantage(group, seq)
            tau = 1.0 if advantage > 0 else 1.05
            own = torch.zeros((), dtype=torch.float64)
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                gate = 4 / tau / (1 + torch.exp(-tau * (torch.exp(logp - mu) - 1)))
                own = own + gate * advantage
            total, answers = total - own / len(seq), answers + 1
    return total / answers


def rloo(step: Step, constant: int) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for i, seq in enumerate(group):
            others = [s.reward for j, s in enumerate(group) if j != i]
            advantage = seq.reward - mean(others) if others else 0.0
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                total = total - ppo_term(torch.exp(logp - mu), advantage, 0.2, 0.2) / constant
            answers += 1
    return total / answers


def reinforce_pp(step: Step, beta: float) -> Tensor:
    """A_t = r - beta · sum of the k1 estimates from t on, normalized over the batch's tokens; PPO's clip."""
    rows = []
    for seq in all_sequences(step):
        for t in range(len(seq)):
            rest = sum(seq.start[i] - seq.ref[i] for i in range(t, len(seq)))
            rows.append((seq.reward - beta * rest, seq.logp[t], seq.mu[t]))
    numbers = [a for a, _, _ in rows]
    m, d = mean(numbers), deviation(numbers)
    return -sum(ppo_term(torch.exp(p - q), (a - m) / (d + 1e-6), 0.2, 0.2) for a, p, q in rows) / len(rows)


def reinforce_pp_baseline(step: Step) -> Tensor:
    rows = [(centered(group, seq), seq) for group in step for seq in group]
    numbers = [a for a, _ in rows]
    m, d = mean(numbers), deviation(numbers)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for advantage, seq in rows:
        for logp, mu in zip(seq.logp, seq.mu, strict=True):
            total = total - ppo_term(torch.exp(logp - mu), (advantage - m) / (d + 1e-6), 0.2, 0.2)
            tokens += 1
    return total / tokens


def gae(step: Step, beta: float, gamma: float, lam: float) -> list[tuple[Seq, int, float, float]]:
    """GAE equation 16 as a sum, with a k3 penalty in the reward: (sequence, token, advantage, return) of each token."""
    rows = []
    for seq in all_sequences(step):
        n = len(seq)
        v = [*seq.old_values, 0.0]

        def k3(i: int, seq: Seq = seq) -> float:
            gap = seq.ref[i] - seq.start[i]
            return math.exp(gap) - gap - 1

        r = [-beta * k3(i) + (seq.reward if i == n - 1 else 0.0) for i in range(n)]
        deltas = [r[i] + gamma * v[i + 1] - v[i] for i in range(n)]
        for t in range(n):
            advantage = sum((gamma * lam) ** (i - t) * deltas[i] for i in range(t, n))
            rows.append((seq, t, advantage, advantage + v[t]))
    return rows


def value_loss(step: Step, beta: float, gamma: float = 1.0, lam: float = 0.95, coef: float = 0.5) -> Tensor:
    """PPO's clipped value loss, mean over tokens."""
    total, rows = torch.zeros((), dtype=torch.float64), gae(step, beta, gamma, lam)
    for seq, t, _, target in rows:
        near = clip(seq.values[t], seq.old_values[t] - 0.2, seq.old_values[t] + 0.2)
        total = total + coef * larger((seq.values[t] - target) ** 2, (near - target) ** 2) / 2
    return total / len(rows)


def ppo(
    step: Step, beta: float, gamma: float = 1.0, lam: float = 0.95, coef: float = 0.5, whiten: bool = True
) -> Tensor:
    """PPO's clipped surrogate and clipped value loss."""
    rows = gae(step, beta, gamma, lam)
    numbers = [row[2] for row in rows]
    m, d = (mean(numbers), deviation(numbers) + 1e-6) if whiten else (0.0, 1.0)
    total = torch.zeros((), dtype=torch.float64)
    for seq, t, advantage, _ in rows:
        total = total - ppo_term(torch.exp(seq.logp[t] - seq.mu[t]), (advantage - m) / d, 0.2, 0.2)
    return total / len(rows) + value_loss(step, beta, gamma, lam, coef)


# ---------------------------------------------------------------- off-policy


def opmd(step: Step, tau: float = 0.1) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            whole, old = sum(seq.logp), sum(seq.mu)
            total = total - centered(group, seq) * whole + tau / 2 * (whole - old) ** 2
            answers += 1
    return total / answers


def asymre(step: Step, constant: int, shift: float = -0.1) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        value = mean([s.reward for s in group]) + shift
        for seq in group:
            total, answers = total - (seq.reward - value) * sum(seq.logp) / constant, answers + 1
    return total / answers


def topr(step: Step, constant: int) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = centered(group, seq)
            ratio = math.exp(min(float(sum(seq.logp).detach()) - sum(seq.mu), 0.0))
            weight = 1.0 if advantage >= 0 else ratio
            total, answers = total - weight * advantage * sum(seq.logp) / constant, answers + 1
    return total / answers


def rec(step: Step, constant: int, mode: str, importance: bool) -> Tensor:
    total, answers = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            a = centered(group, seq)
            for logp, mu in zip(seq.logp, seq.mu, strict=True):
                w = math.exp(float(logp.detach()) - mu)
                keep = {
                    "one_side": (a >= 0 and w <= 1.2) or (a <= 0 and w >= 0.8),
                    "two_side": 0.8 <= w <= 1.2,
                    "ring": 0.8 <= w <= 1.2 or (a >= 0 and w <= 0.4) or (a <= 0 and w >= 3.0),
                    "none": True,
                }[mode]
                if keep:
                    total = total - (w if importance else 1.0) * a * logp / constant
            answers += 1
    return total / answers


def decoupled_ppo(step: Step, weight_of) -> Tensor:
    """-(prox / behavior) · min(u A, clip(u) A), with u = policy / prox and prox the policy as the step began."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for group in step:
        for seq in group:
            advantage = grpo_advantage(group, seq)
            for t, logp in enumerate(seq.logp):
                surrogate = ppo_term(torch.exp(logp - seq.start[t]), advantage, 0.2, 0.2)
                total, tokens = total - weight_of(seq, t) * surrogate, tokens + 1
    return total / tokens


# ---------------------------------------------------------------- supervised, preferences, teachers


def sft(step: Step) -> Tensor:
    every = [logp for seq in all_sequences(step) for logp in seq.logp]
    return -sum(every) / len(every)


def dpo(step: Step, beta: float = 0.1, smoothing: float = 0.0) -> Tensor:
    losses = []
    for group in step:
        chosen = max(group, key=lambda s: s.reward)
        rejected = min(group, key=lambda s: s.reward)
        if chosen.reward == rejected.reward:
            continue
        z = beta * ((sum(chosen.logp) - sum(chosen.ref)) - (sum(rejected.logp) - sum(rejected.ref)))
        yes, no = torch.log(1 / (1 + torch.exp(-z))), torch.log(1 / (1 + torch.exp(z)))
        losses.append(-(1 - smoothing) * yes - smoothing * no)
    return sum(losses) / len(losses)


def kto(step: Step, baseline: float, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.5) -> Tensor:
    losses = []
    for seq in all_sequences(step):
        h = sum(seq.logp) - sum(seq.ref)
        if seq.reward > 0:
            losses.append(desirable * (1 - 1 / (1 + torch.exp(-beta * (h - baseline)))))
        else:
            losses.append(undesirable * (1 - 1 / (1 + torch.exp(-beta * (baseline - h)))))
    return sum(losses) / len(losses)


def mixed(step: Step, share: float, phi: bool) -> Tensor:
    """(1 - μ) · GRPO on rollouts + μ · imitation of demonstrations, each a mean over its own tokens."""
    own = [[s for s in group if not s.demonstration] for group in step]
    demonstrations = [s for s in all_sequences(step) if s.demonstration]
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for seq in demonstrations:
        for logp in seq.logp:
            p = math.exp(float(logp.detach()))
            total, tokens = total - (p * (1 - p) if phi else 1.0) * logp, tokens + 1
    return (1 - share) * grpo([group for group in own if group]) + share * total / tokens


def distill(step: Step) -> Tensor:
    """Policy gradient of the reverse KL: a token's advantage is the teacher's minus the student's log-probability."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for seq in all_sequences(step):
        for t, logp in enumerate(seq.logp):
            advantage = seq.teacher[t] - seq.start[t]
            total, tokens = total - ppo_term(torch.exp(logp - seq.mu[t]), advantage, 0.2, 0.2), tokens + 1
    return total / tokens
