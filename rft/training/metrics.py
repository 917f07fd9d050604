"""What one step reports in ``TrainingStep.metrics``.

| metric | meaning |
| --- | --- |
| loss | what was minimised, all terms included; mean over the step's updates |
| grad_norm | before clipping, mean over updates; 0 when all are ``skipped`` |
| skipped | share of updates whose gradient was not finite: they left the weights as they were |
| updates | optimiser updates of the step |
| reward_mean, reward_std, advantage_abs_mean | over the step's samples |
| ratio_mean | probability now over that of the old policy (``algorithm.old``), over ``action_tokens`` |
| clip_share | share of tokens whose gradient the clip took away |
| kl | mean estimate against the initial weights; 0 without a KL term |
| entropy | of the policy at the tokens, in nats |
| logprob_gap_mean, logprob_gap_p99, logprob_gap_max | trainer's minus sampler's log-probability, absolute, over tokens sampled by the very weights that the step started from; absent when there are none |
| outside_nucleus | share of tokens that the sampler's nucleus held and the trainer's does not, whose log-probability is therefore not exact; absent when all was sampled with ``top_p`` 1 |
| correction_mean | mean weight between trainer and sampler (``algorithm.correction``) |
| value_loss | of the value head |
| value_crc32 | of the value head's weights after the step, which the digest of the policy's does not hold; a redo checks it |
| demonstration_share | μ: the demonstrations' share of the loss |
| kl_baseline | KTO's reference point |
| staleness_max, staleness_mean | versions between the step's and each sample's oldest token |
| learning_rate, tokens, groups, experiences | as used; tokens with prompts |
| action_tokens | tokens that were learned from, once an epoch; most losses leave out sequences whose advantage is 0 |
| idle_s | waiting for data since the step before |
| read_s | reading and decoding events since the step before |
| step_s | forward, backward, optimiser |
| publish_s | of the step before: digest, weight files, acknowledgements of its events |
| checkpoint_s | writing a checkpoint since the step before |
| buffer_bytes | held in the buffer after the step's samples were taken |
| duplicates | events dropped as duplicates since the step before |
"""  # noqa: E501 (table rows)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.inputs import TokenLoss
from rft.training.batch import MicroBatch


class TokenTotals:
    """Sums over the micro-batches of one step."""

    def __init__(self, version: int | None) -> None:
        self._version = version
        self._tokens = 0
        self._gaps: list[Tensor] = []
        self._sums: defaultdict[str, float] = defaultdict(float)

    @torch.no_grad()
    def add(
        self,
        batch: MicroBatch,
        token: TokenLoss,
        logprobs: Tensor,
        distribution: Tensor,
        loss: float,
        kl: Tensor | None,
        *,
        first: bool = True,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """One micro-batch of N tokens.

        Args:
            logprobs: [N].
            distribution: [N, V] of log-probabilities.
            loss: its share of the step's.
            kl: estimates [N].
            first: the weights are those that the step started from.
            extra: [N] by name, whose means are reported.
        """
        self._tokens += len(logprobs)
        self._sums["loss"] += loss
        self._sums["ratio_mean"] += float(token.ratio.sum())
        self._sums["clip_share"] += float(token.clipped.sum())
        self._sums["entropy"] -= float((distribution.exp() * distribution).nan_to_num(0.0).sum())
        if kl is not None:
            self._sums["kl"] += float(kl.sum())
        for name, values in (extra or {}).items():
            self._sums[name] += float(values.sum())
        if first and self._version is not None:
            self._gaps.append((logprobs - batch.behaviour).abs()[batch.versions == self._version])

    def message(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What another rank's totals need to :meth:`absorb` these: JSON values and tensors."""
        gaps = torch.cat(self._gaps).cpu() if self._gaps else torch.zeros(0)
        return {"tokens": self._tokens, "sums": dict(self._sums)}, {"gaps": gaps}

    def absorb(self, words: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Add another rank's :meth:`message`."""
        self._tokens += words["tokens"]
        for name, value in words["sums"].items():
            self._sums[name] += value
        self._gaps.append(tensors["gaps"])

    def metrics(self) -> dict[str, float]:
        """The token-level part of the step's metrics."""
        tokens = max(self._tokens, 1)
        sums = dict.fromkeys(("loss", "ratio_mean", "clip_share", "kl", "entropy"), 0.0) | self._sums
        result = {name: total if name == "loss" else total / tokens for name, total in sums.items()}
        result["action_tokens"] = float(self._tokens)
        gaps = torch.cat([gaps.cpu() for gaps in self._gaps]).double().numpy() if self._gaps else np.zeros(0)
        if len(gaps):
            result["logprob_gap_mean"] = float(gaps.mean())
            result["logprob_gap_p99"] = float(np.quantile(gaps, 0.99))
            result["logprob_gap_max"] = float(gaps.max())
        return result
