"""Token losses and KL estimates equal plain float64 loops, and their gradients are those of the formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rft.algorithms import kl, losses
from rft.algorithms.inputs import TokenBatch

logprob = st.floats(-8, 0)
tokens = st.lists(st.tuples(logprob, logprob, st.floats(-3, 3)), min_size=1, max_size=20)


def one_sequence(now, sampler, advantages):
    first = torch.zeros(1, dtype=torch.int64)
    return TokenBatch(now, sampler, advantages, torch.zeros(len(now), dtype=torch.int64), torch.ones(1), first)


def columns(rows):
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


@given(tokens, st.floats(0.05, 0.5), st.floats(0.05, 2.0))
def test_clipped_equals_ppos_surrogate(rows, low, high):
    now, sampler, advantages = columns(rows)
    result = losses.clipped(one_sequence(now, sampler, advantages), clip_low=low, clip_high=high)
    for i, (p, q, a) in enumerate(rows):
        ratio = math.exp(p - q)
        bounded = min(max(ratio, 1 - low), 1 + high) * a
        assert float(result.ratio[i]) == pytest.approx(ratio)
        assert float(result.loss[i]) == pytest.approx(-min(ratio * a, bounded), abs=1e-12)
        assert bool(result.clipped[i]) == (bounded < ratio * a)


@given(tokens)
def test_a_clipped_token_has_no_gradient_and_the_others_have_the_policy_gradient(rows):
    now, sampler, advantages = columns(rows)
    now.requires_grad_(True)
    result = losses.clipped(one_sequence(now, sampler, advantages), clip_low=0.2, clip_high=0.2)
    result.loss.sum().backward()
    expected = torch.where(result.clipped, 0.0, -advantages * result.ratio)
    inside = (result.ratio - 0.8).abs().minimum((result.ratio - 1.2).abs()) > 1e-9
    assert torch.allclose(now.grad[inside], expected[inside])


@given(tokens)
def test_reinforce_is_the_plain_policy_gradient(rows):
    now, sampler, advantages = columns(rows)
    now.requires_grad_(True)
    result = losses.reinforce(one_sequence(now, sampler, advantages))
    result.loss.sum().backward()
    assert torch.equal(now.grad, -advantages)
    assert not result.clipped.any()
    assert not result.ratio.requires_grad


def test_an_extreme_ratio_stays_finite():
    result = losses.clipped(
        one_sequence(torch.tensor([0.0]), torch.tensor([-500.0]), torch.tensor([-1.0])), clip_low=0.2, clip_high=0.2
    )
    assert torch.isfinite(result.loss).all()


@given(tokens)
def test_kl_estimates_equal_their_formulas(rows):
    now, reference, _ = columns(rows)
    for i, (p, q, _) in enumerate(rows):
        assert float(kl.k1(now, reference)[i]) == pytest.approx(p - q)
        assert float(kl.k2(now, reference)[i]) == pytest.approx((p - q) ** 2 / 2)
        assert float(kl.k3(now, reference)[i]) == pytest.approx(math.exp(q - p) - 1 - (q - p), abs=1e-9)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=8))
def test_k1_and_k3_are_unbiased(logits):
    now, reference = (torch.log_softmax(column, 0) for column in columns(logits))
    exact = float((now.exp() * (now - reference)).sum())
    for estimator in (kl.k1, kl.k3):
        assert float((now.exp() * estimator(now, reference)).sum()) == pytest.approx(exact, abs=1e-9)


@given(tokens)
def test_k2_and_k3_are_never_negative(rows):
    now, reference, _ = columns(rows)
    assert (kl.k2(now, reference) >= 0).all()
    assert (kl.k3(now, reference) >= -1e-12).all()


def test_dual_clip_bounds_the_loss_of_negative_advantages_and_changes_nothing_else() -> None:
    now = torch.tensor([1.5, 1.5, 0.2, -0.5], requires_grad=True)
    sampler, advantages = torch.zeros(4), torch.tensor([-1.0, 1.0, -1.0, -1.0])
    plain = losses.clipped(one_sequence(now, sampler, advantages), clip_low=0.2, clip_high=0.2)
    bounded = losses.clipped(one_sequence(now, sampler, advantages), clip_low=0.2, clip_high=0.2, dual_clip=2.0)
    assert bounded.loss.tolist() == pytest.approx([2.0, *plain.loss[1:].tolist()])
    (gradient,) = torch.autograd.grad(bounded.loss.sum(), now)
    (free,) = torch.autograd.grad(plain.loss.sum(), now)
    assert gradient.tolist() == [0.0, *free[1:].tolist()]
    assert bounded.clipped.tolist() == [True, *plain.clipped[1:].tolist()]
