"""Estimates KL(policy ‖ reference) from one sample a token (http://joschu.net/blog/kl-approx.html).

All functions are pure. They take float log-probabilities [N] of the sampled tokens under policy and reference and
return one estimate for each token, [N].

As values all three estimate the same quantity. As losses their gradients differ. That of k2 is the gradient of the true
KL, that of k1 is 0 in expectation for on-policy samples, and that of k3 is close to k2's while the policies are close,
with less variance. Multiplied by the ratio of the policy to the sampler (:func:`unbiased`), k1 and k3 have the gradient
of the true KL, whatever sampled the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.inputs import importance_ratio


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return ``log p - log q``: unbiased, may be negative."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return ``(log p - log q)² / 2``: biased, never negative."""
    return 0.5 * (logprobs - reference) ** 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return ``q/p - 1 - log(q/p)``: unbiased, never negative."""
    log_ratio = torch.clamp(reference - logprobs, -20.0, 20.0)
    return torch.expm1(log_ratio) - log_ratio


def unbiased(estimates: Tensor, logprobs: Tensor, sampler: Tensor) -> Tensor:
    """Return ``π/μ · estimates`` for a sampler μ: the term of DeepSeek-V3.2 (https://arxiv.org/abs/2512.02556, equation
    7).

    The ratio carries a gradient, so that ``E_μ[∇(π/μ · estimate)] = ∇ E_π[estimate]``.
    """
    return importance_ratio(logprobs, sampler) * estimates
