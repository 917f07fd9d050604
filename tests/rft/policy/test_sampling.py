"""Tests that each row is drawn from exactly the distribution of its log-probability."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rft.policy.transformers.sampling import sample_tokens


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = uniforms.shape[0]
    return sample_tokens(
        logits.expand(rows, -1), uniforms, torch.full((rows,), temperature), torch.full((rows,), top_p)
    )


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.6), (1.5, 0.8)])
def test_evenly_spread_uniforms_reproduce_the_distribution(temperature: float, top_p: float) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0))
    count = 20_000
    tokens, logprobs = draw(logits, (torch.arange(count) + 0.5) / count, temperature, top_p)
    frequencies = torch.bincount(tokens, minlength=12) / count
    returned = torch.zeros(12)
    returned[tokens] = logprobs.exp()
    assert frequencies.tolist() == pytest.approx(returned.tolist(), abs=2e-4)
    full = torch.softmax(logits / temperature, dim=-1)
    kept = frequencies > 0
    assert returned[kept].tolist() == pytest.approx((full[kept] / full[kept].sum()).tolist(), abs=1e-5)
    assert full[kept].sum() >= top_p - 1e-6
    assert full[kept].sum() - full[kept].min() < top_p


def test_greedy_rows_take_the_likeliest_token_with_the_models_own_logprob() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, -1.0]])
    tokens, logprobs = sample_tokens(logits, torch.tensor([0.99, 0.99]), torch.zeros(2), torch.full((2,), 0.1))
    assert tokens.tolist() == [1, 0]
    assert logprobs.tolist() == pytest.approx(torch.log_softmax(logits, dim=-1)[[0, 1], [1, 0]].tolist(), abs=1e-6)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    uniform=st.sampled_from([0.0, 1e-8, 0.5, 1 - 2**-24]),
    temperature=st.sampled_from([0.05, 1.0, 20.0]),
    top_p=st.sampled_from([1e-6, 0.5, 0.999, 1.0]),
    banned=st.sets(st.integers(0, 30), max_size=30),
)
def test_no_token_of_probability_zero_is_ever_drawn(
    seed: int, uniform: float, temperature: float, top_p: float, banned: set[int]
) -> None:
    logits = torch.randn(31, generator=torch.Generator().manual_seed(seed)) * 3
    logits[sorted(banned)] = -torch.inf
    tokens, logprobs = draw(logits, torch.tensor([uniform]), temperature, top_p)
    assert int(tokens) not in banned
    assert torch.isfinite(logprobs).all()
    assert logprobs.item() <= 1e-6


def test_a_row_with_broken_logits_is_marked_and_does_not_change_the_others() -> None:
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [0.0, float("inf")]])
    tokens, logprobs = sample_tokens(logits, torch.full((3,), 0.5), torch.ones(3), torch.ones(3))
    assert torch.isfinite(logprobs).tolist() == [True, False, False]
    assert ((tokens >= 0) & (tokens < 2)).all()
