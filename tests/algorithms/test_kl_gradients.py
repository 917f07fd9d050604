"""The expected gradients of KL terms, computed exactly over a whole vocabulary in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rft.algorithms import kl
from rft.algorithms.inputs import Trajectories
from rft.algorithms.trajectories import teacher_jsd

ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}


def distributions() -> tuple[Tensor, Tensor, Tensor]:
    """Return the policy's logits, and the log-probabilities of the reference and of an older policy; [V] each."""
    numbers = torch.Generator().manual_seed(0)
    logits, reference, older = torch.randn(3, 9, generator=numbers, dtype=torch.float64).unbind()
    return logits.requires_grad_(), reference.log_softmax(-1), older.log_softmax(-1)


def true_gradient() -> Tensor:
    logits, reference, _ = distributions()
    policy = logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits)
    return gradient


def expected_gradient(name: str, *, unbiased: bool, stale: bool) -> Tensor:
    """Return ``E[∇ term]`` over all tokens that the sampler may draw: the policy itself, or the older one."""
    logits, reference, older = distributions()
    policy = logits.log_softmax(-1)
    sampler = older if stale else policy.detach()
    terms = ESTIMATORS[name](policy, reference)
    if unbiased:
        terms = kl.unbiased(terms, policy, sampler)
    (gradient,) = torch.autograd.grad((sampler.exp() * terms).sum(), logits)
    return gradient


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("name", ["k1", "k3"])
def test_an_estimator_times_the_ratio_has_the_true_gradient(name: str, stale: bool) -> None:
    assert torch.allclose(expected_gradient(name, unbiased=True, stale=stale), true_gradient(), atol=1e-12)


def test_without_the_ratio_k1_has_no_gradient_on_policy_and_k3_a_biased_one() -> None:
    truth = true_gradient()
    assert expected_gradient("k1", unbiased=False, stale=False).abs().max() < 1e-12
    assert (expected_gradient("k3", unbiased=False, stale=False) - truth).abs().max() > 0.05 * truth.abs().max()
    assert torch.allclose(expected_gradient("k2", unbiased=False, stale=False), truth, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_jsd_advantage_has_the_gradient_of_the_divergence(beta: float) -> None:
    """GKD equation 1 over the whole vocabulary, against the policy gradient with our advantages."""
    logits, teacher, _ = distributions()
    policy = logits.log_softmax(-1)
    mixture = torch.log(beta * teacher.exp() + (1 - beta) * policy.exp())
    forward = (teacher.exp() * (teacher - mixture)).sum()
    backward = (policy.exp() * (policy - mixture)).sum()
    (truth,) = torch.autograd.grad(beta * forward + (1 - beta) * backward, logits, retain_graph=True)
    none = np.zeros(9)
    steps = Trajectories(none, none.astype(np.int64), none.astype(np.int64), none.astype(np.int64), none,
                         policy.detach().numpy(), None, teacher.numpy())  # fmt: skip
    advantages = torch.from_numpy(teacher_jsd(steps, beta=beta))
    (ours,) = torch.autograd.grad(-(policy.detach().exp() * advantages * policy).sum(), logits)
    assert torch.allclose(ours, truth, atol=1e-12)
