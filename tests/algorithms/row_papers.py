"""Losses of samples of several rows and of rewards by turn, in float64, one token at a time. Shares no code with rft.

``step`` is a list of groups, a group a list of :class:`RowSample`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import papers
import torch
from torch import Tensor

EPSILON = 1e-6


@dataclass
class Turn:
    tokens: list[tuple[int, int]]
    """(row, index among the row's action tokens)"""
    reward: float | None
    state: tuple[int, ...]
    """The tokens that the policy read since its last turn."""


@dataclass
class RowSample:
    reward: float
    rows: list[papers.Seq]
    turns: list[Turn]


Step = list[list[RowSample]]
Advantage = Callable[[Step, list[RowSample], RowSample], list[list[float]]]
"""→ one number for each token of each row"""


def alike(sample: RowSample, value: float) -> list[list[float]]:
    return [[value] * len(row) for row in sample.rows]


def normalize(value: float, numbers: list[float]) -> float:
    return (value - papers.mean(numbers)) / (papers.deviation(numbers) + EPSILON)


def grpo(step: Step, group: list[RowSample], sample: RowSample) -> list[list[float]]:
    return alike(sample, normalize(sample.reward, [one.reward for one in group]))


def rloo(step: Step, group: list[RowSample], sample: RowSample) -> list[list[float]]:
    others = [one.reward for one in group if one is not sample]
    return alike(sample, sample.reward - papers.mean(others) if others else 0.0)


def by_turn(sample: RowSample, values: list[float]) -> list[list[float]]:
    result = alike(sample, math.nan)
    for turn, value in zip(sample.turns, values, strict=True):
        for row, index in turn.tokens:
            result[row][index] = value
    return result


def earned(sample: RowSample) -> list[float]:
    """The reward of each turn; the last one also earns that of the sample."""
    rewards = [turn.reward or 0.0 for turn in sample.turns]
    rewards[-1] += sample.reward
    return rewards


def discounted(rewards: list[float], gamma: float) -> list[float]:
    return [sum(gamma ** (j - k) * rewards[j] for j in range(k, len(rewards))) for k in range(len(rewards))]


def turn_normalized(gamma: float) -> Advantage:
    """DeepSeekMath, section 4.1.3: normalized by all step rewards of the group, summed over the following steps."""

    def advantage(step: Step, group: list[RowSample], sample: RowSample) -> list[list[float]]:
        def known(one: RowSample) -> list[int]:
            return [k for k, turn in enumerate(one.turns) if turn.reward is not None or k == len(one.turns) - 1]

        every = [earned(one)[k] for one in group for k in known(one)]
        own = [normalize(r, every) if k in known(sample) else 0.0 for k, r in enumerate(earned(sample))]
        return by_turn(sample, discounted(own, gamma))

    return advantage


def gigpo(gamma: float, weight: float, normal: bool) -> Advantage:
    def compare(value: float, numbers: list[float]) -> float:
        return normalize(value, numbers) if normal else value - papers.mean(numbers)

    def advantage(step: Step, group: list[RowSample], sample: RowSample) -> list[list[float]]:
        episode = compare(sum(earned(sample)), [sum(earned(one)) for one in group])
        values = []
        for turn, ahead in zip(sample.turns, discounted(earned(sample), gamma), strict=True):
            same = [
                other_ahead
                for one in group
                for other, other_ahead in zip(one.turns, discounted(earned(one), gamma), strict=True)
                if other.state == turn.state
            ]
            values.append(episode + weight * compare(ahead, same))
        return by_turn(sample, values)

    return advantage


def tokens_of(sample: RowSample) -> list[tuple[int, int]]:
    """All tokens of a sample, in the order of time."""
    return [(r, t) for r, row in enumerate(sample.rows) for t in range(len(row))]


def rewards_by_token(sample: RowSample) -> list[float]:
    order = tokens_of(sample)
    rewards = [0.0] * len(order)
    for turn in sample.turns:
        rewards[order.index(turn.tokens[-1])] += turn.reward or 0.0
    rewards[-1] += sample.reward
    return rewards


def in_rows(sample: RowSample, flat: list[float]) -> list[list[float]]:
    values = iter(flat)
    return [[next(values) for _ in range(len(row))] for row in sample.rows]


def reinforce_pp(gamma: float) -> Advantage:
    def advantage(step: Step, group: list[RowSample], sample: RowSample) -> list[list[float]]:
        every = [a for g in step for one in g for a in discounted(rewards_by_token(one), gamma)]
        return in_rows(sample, [normalize(a, every) for a in discounted(rewards_by_token(sample), gamma)])

    return advantage


def gae(sample: RowSample, gamma: float, lam: float) -> list[float]:
    values = [row.old_values[t] for r, row in enumerate(sample.rows) for t in range(len(row))]
    ahead = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, v, n in zip(rewards_by_token(sample), values, ahead, strict=True)]
    return discounted(deltas, gamma * lam)


def loss(step: Step, advantage: Advantage, weight: Callable[[Step, RowSample, int], float]) -> Tensor:
    """PPO's clipped loss; ``weight`` gives that of a token of a sample's row."""
    total = torch.zeros((), dtype=torch.float64)
    for group in step:
        for sample in group:
            advantages = advantage(step, group, sample)
            for r, row in enumerate(sample.rows):
                for t, (logp, mu) in enumerate(zip(row.logp, row.mu, strict=True)):
                    term = papers.ppo_term(torch.exp(logp - mu), advantages[r][t], 0.2, 0.2)
                    total = total - weight(step, sample, r) * term
    return total


def every_sample(step: Step) -> list[RowSample]:
    return [sample for group in step for sample in group]


def length(sample: RowSample) -> int:
    return sum(len(row) for row in sample.rows)


def token_mean_as_one(step: Step, sample: RowSample, row: int) -> float:
    """A sample counts as one answer as long as its rows are on average."""
    total = sum(length(one) / len(one.rows) for one in every_sample(step))
    return 1 / len(sample.rows) / total


def token_mean_as_tokens(step: Step, sample: RowSample, row: int) -> float:
    return 1 / sum(length(one) for one in every_sample(step))


def sequence_mean(step: Step, sample: RowSample, row: int) -> float:
    return 1 / length(sample) / len(every_sample(step))


def sequence_sum_as_one(constant: int) -> Callable[[Step, RowSample, int], float]:
    return lambda step, sample, row: 1 / constant / len(sample.rows) / len(every_sample(step))
