"""Estimators of KL(policy ‖ reference) from single samples (http://joschu.net/blog/kl-approx.html).

Pure functions: log-probabilities [N] of the sampled tokens under policy and reference in, one estimate a token out.
As values all three estimate the same; as losses their gradients differ: k2's is that of the true KL, k1's is 0
in expectation for on-policy samples, k3's is close to k2's while the policies are close, with less variance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """``log p - log q``: unbiased, may be negative."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """``(log p - log q)² / 2``: biased, never negative."""
    return 0.5 * (logprobs - reference) ** 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """``q/p - 1 - log(q/p)``: unbiased, never negative."""
    log_ratio = torch.clamp(reference - logprobs, -20.0, 20.0)
    return torch.expm1(log_ratio) - log_ratio
