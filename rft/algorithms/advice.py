"""Finds settings of an algorithm that are allowed but seldom meant. Needs no torch, so that it answers at once."""

from __future__ import annotations

from rft.config import AlgorithmConfig


def algorithm_warnings(config: AlgorithmConfig) -> list[str]:
    """Return a warning for each setting that hardly does what its user expects: what happens, and what to do."""
    warnings = []
    if config.kl == "k1" and config.kl_in == "loss" and config.kl_coef and not config.kl_unbiased:
        warnings.append(
            "algorithm.kl = 'k1' in the loss: its gradient is 0 on average on-policy, so it does not keep the policy "
            "near the initial weights. Set algorithm.kl_unbiased = true, kl = 'k2' or 'k3', or kl_in = 'reward'"
        )
    return warnings
