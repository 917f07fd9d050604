"""Tokens are selected over the whole step, and losses may read entropies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import papers
import pytest
import torch
from random_steps import assert_equal, random_case, run
from torch import Tensor

from rft.algorithms.compose import compose
from rft.algorithms.inputs import TokenBatch, needs
from rft.algorithms.token_filters import StepTokens, clip_cov, covariances
from rft.config import AlgorithmConfig
from rft.errors import ConfigError
from rft.training.token_logprobs import entropies, token_logprobs


@needs(entropy=True)
def weighed_by_entropy(tokens: TokenBatch) -> Tensor:
    assert tokens.entropy is not None
    return -tokens.advantages * tokens.entropy * tokens.logprobs


def first_half(tokens: StepTokens) -> Any:
    return np.arange(len(tokens.policy)) < len(tokens.policy) // 2


def broken(tokens: StepTokens) -> Any:
    return np.ones(5, dtype=bool)


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_asks_for_entropies_has_them_with_their_gradient(seed: int) -> None:
    def paper(step: papers.Step) -> Tensor:
        rows = [
            papers.grpo_advantage(group, seq) * entropy * logp
            for group in step
            for seq in group
            for entropy, logp in zip(seq.entropy, seq.logp, strict=True)
        ]
        return -sum(rows) / len(rows)

    case = random_case(seed)
    assert_equal(case, run(case, loss="test_token_filters:weighed_by_entropy"), paper)


@pytest.mark.parametrize("seed", range(3))
def test_demonstrations_are_not_filtered_and_kl_and_entropy_terms_keep_all_tokens(seed: int) -> None:
    def paper(step: papers.Step) -> Tensor:
        rollouts = [(seq, t) for seq in papers.all_sequences(step) if not seq.demonstration for t in range(len(seq))]
        kept = {(id(seq), t) for seq, t in rollouts[: len(rollouts) // 2]}
        own = [[seq for seq in group if not seq.demonstration] for group in step]
        policy = papers.grpo([group for group in own if group], kept=lambda seq, t, a: (id(seq), t) in kept)
        imitated = [p for seq in papers.all_sequences(step) if seq.demonstration for p in seq.logp]
        total = 0.9 * policy - 0.1 * sum(imitated) / len(imitated)
        for seq in papers.all_sequences(step):
            share = 0.1 / len(imitated) if seq.demonstration else 0.9 / len(rollouts)
            total = total - 0.01 * share * sum(seq.entropy)
        return total

    case = random_case(seed, kinds="mixed")
    result = run(case, name="mix", token_filter="test_token_filters:first_half", entropy_coef=0.01)
    assert_equal(case, result, paper)
    assert 0 < result.metrics["filtered_share"] < 0.5


def test_clip_cov_leaves_out_a_share_of_all_tokens_at_random_and_the_same_when_a_step_is_redone() -> None:
    numbers = np.random.default_rng(0)
    tokens = [StepTokens(*numbers.normal(0, 2, (3, 1000)), number=number) for number in (1, 2)]
    covariance = covariances(tokens[0].advantages, tokens[0].policy)
    candidates = (covariance >= 1) & (covariance <= 5)
    kept = clip_cov(tokens[0], share=0.02)
    assert (~kept).sum() == 20 < candidates.sum()
    assert (~kept <= candidates).all()
    assert (kept == clip_cov(tokens[0], share=0.02)).all()
    again = StepTokens(tokens[0].advantages, tokens[0].policy, tokens[0].entropy, number=2)
    assert (kept != clip_cov(again, share=0.02)).any()
    assert (~clip_cov(tokens[0], share=1e-9)).sum() == 1
    assert clip_cov(tokens[0], low=1e6, high=1e7).all()


def test_entropies_leave_out_impossible_tokens_with_a_finite_gradient() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.5, -math.inf], [0.0, 1.0, 2.0, 3.0]], requires_grad=True)
    found = token_logprobs(logits, torch.tensor([0, 3]), torch.tensor([0.7, 1.0]), None)
    result = entropies(found.distribution)
    wanted = [
        torch.distributions.Categorical(logits=row[torch.isfinite(row)] / t)
        for row, t in ((logits[0], 0.7), (logits[1], 1.0))
    ]
    assert result.tolist() == pytest.approx([float(one.entropy().detach()) for one in wanted], rel=1e-6)
    result.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] == 0 != logits.grad[0, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_filter": "high_entrop"}, r"did you mean 'high_entropy'\?"),
        ({"token_filter": "high_entropy", "token_filter_options": {"part": 1}}, "has no option part; it has share"),
        ({"token_filter": "test_token_filters:broken"}, r"must return one number for each of two"),
    ],
)
def test_a_faulty_token_filter_is_reported_before_anything_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(AlgorithmConfig(**fields))
