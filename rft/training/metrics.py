"""What one step reports in ``TrainingStep.metrics``.

| metric | meaning |
| --- | --- |
| loss | what was minimised, KL term included |
| grad_norm | before clipping; 0 when ``skipped`` |
| skipped | 1: the gradient was not finite, the weights stayed |
| reward_mean, reward_std, advantage_abs_mean | over the step's samples |
| ratio_mean | probability now over probability when sampled, over ``action_tokens`` |
| clip_share | share of tokens whose gradient the clip took away |
| kl | mean estimate against the initial weights; 0 without a KL term |
| entropy | of the policy at the tokens, in nats |
| logprob_gap_mean, logprob_gap_max | trainer's minus sampler's log-probability, absolute, over tokens sampled by the very weights that the step started from; absent when there are none |
| staleness_max, staleness_mean | versions between the step's and each sample's oldest token |
| learning_rate, tokens, groups, experiences | as used; tokens with prompts |
| action_tokens | tokens that were learned from: without a KL term, those with an advantage other than 0 |
| idle_s | waiting for data since the step before |
| read_s | reading and decoding events since the step before |
| step_s | forward, backward, optimiser |
| publish_s | of the step before: digest, weight files, acknowledgements of its events |
| checkpoint_s | writing a checkpoint since the step before |
| buffer_bytes | held in the buffer after the step's samples were taken |
| duplicates | events dropped as duplicates since the step before |
"""  # noqa: E501 (table rows)

from __future__ import annotations

import torch
from torch import Tensor

from rft.algorithms.losses import TokenLoss
from rft.training.batch import MicroBatch


class TokenTotals:
    """Sums over the micro-batches of one step."""

    def __init__(self, version: int | None) -> None:
        self._version = version
        self._tokens = 0
        self._compared = 0
        self._gap_max = 0.0
        self._sums = {"loss": 0.0, "ratio": 0.0, "clipped": 0.0, "kl": 0.0, "entropy": 0.0, "gap": 0.0}

    @torch.no_grad()
    def add(
        self,
        batch: MicroBatch,
        token: TokenLoss,
        logprobs: Tensor,
        distribution: Tensor,
        loss: float,
        kl: Tensor | None,
    ) -> None:
        """One micro-batch of N tokens: ``logprobs`` [N], ``distribution`` [N, V] of log-probabilities, ``kl`` [N]."""
        self._tokens += len(logprobs)
        self._sums["loss"] += loss
        self._sums["ratio"] += float(token.ratio.sum())
        self._sums["clipped"] += float(token.clipped.sum())
        self._sums["entropy"] -= float((distribution.exp() * distribution).nan_to_num(0.0).sum())
        if kl is not None:
            self._sums["kl"] += float(kl.sum())
        if self._version is None:
            return
        gaps = (logprobs - batch.behaviour).abs()[batch.versions == self._version]
        if len(gaps):
            self._compared += len(gaps)
            self._sums["gap"] += float(gaps.sum())
            self._gap_max = max(self._gap_max, float(gaps.max()))

    def metrics(self) -> dict[str, float]:
        """The token-level part of the step's metrics."""
        tokens = max(self._tokens, 1)
        result = {
            "loss": self._sums["loss"],
            "ratio_mean": self._sums["ratio"] / tokens,
            "clip_share": self._sums["clipped"] / tokens,
            "kl": self._sums["kl"] / tokens,
            "entropy": self._sums["entropy"] / tokens,
            "action_tokens": float(self._tokens),
        }
        if self._compared:
            result["logprob_gap_mean"] = self._sums["gap"] / self._compared
            result["logprob_gap_max"] = self._gap_max
        return result
