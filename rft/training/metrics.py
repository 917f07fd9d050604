"""Collects what one step reports in ``TrainingStep.metrics``.

| metric | meaning |
| --- | --- |
| loss | the value that was minimized, all terms included; mean over the step's updates |
| grad_norm | L2 norm before clipping, mean over updates; 0 when all are ``skipped`` |
| skipped | share of updates whose gradient was not finite: they left the weights unchanged |
| updates | optimizer updates of the step |
| reward_mean, reward_std, advantage_abs_mean | over the step's samples |
| ratio_mean | probability now over that of the old policy (``algorithm.old``), over ``action_tokens`` |
| clip_share | share of tokens whose gradient the clip removed |
| kl | mean estimate against the initial weights; 0 without a KL term |
| entropy | of the policy at the tokens, in nats |
| logprob_gap_mean, logprob_gap_p99, logprob_gap_max | absolute difference of the trainer's and the sampler's log-probability, in nats, over tokens sampled by the weights that the step started from; absent if there are none |
| sampler_gap, sampler_version | the mean of the same difference over tokens of the newest version among the step's, and this version; absent if no token of a rollout has a version |
| policy_shift | mean absolute difference of the policy's log-probabilities before and after the step, in nats, over the tokens of four sequences; only in the first four and in each eighth step, and with ``trainer.max_logprob_gap`` |
| teacher_gap | mean of the policy's log-probability minus the teacher's, in nats: an estimate of the reverse KL divergence |
| outside_nucleus | share of tokens that the sampler's nucleus held and the trainer's does not, so that their log-probability is not exact; absent if all were sampled with ``top_p`` 1 |
| correction_mean | mean weight between trainer and sampler (``algorithm.correction``) |
| rejected_share | share of tokens that ``algorithm.rejection`` leaves out |
| off_policy_share | share of tokens that ``algorithm.off_policy_mask`` leaves out |
| filtered_share | share of tokens that ``algorithm.token_filter`` leaves out |
| value_loss | of the value head |
| value_warmup | 1 while the value head learns alone; absent in other steps |
| value_crc32 | CRC-32 of the value head's weights after the step, which the policy's digest does not cover; a redo checks it |
| demonstration_share | μ: the demonstrations' share of the loss |
| kl_baseline | KTO's reference point |
| staleness_max, staleness_mean | versions between the step's and each sample's oldest token |
| learning_rate, tokens, groups, experiences | as used; tokens include prompts |
| action_tokens | tokens that were learned from, counted once per epoch; most losses leave out sequences whose advantage is 0 |
| idle_s | seconds waiting for data since the previous step |
| read_s | seconds reading and decoding events since the previous step |
| step_s | seconds in forward, backward and optimizer |
| publish_s | seconds publishing the previous step: digest, weight files, acknowledgements of its events |
| checkpoint_s | seconds writing a checkpoint since the previous step |
| buffer_bytes | held in the buffer after the step's samples were taken |
| duplicates | events dropped as duplicates since the previous step |
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

    def __init__(self, version: int | None, newest: int = -1) -> None:
        """Begin with nothing.

        Args:
            version: the weight version that the step started from; None if it is between two versions.
            newest: the newest version among the step's tokens; -1 if there is none.
        """
        self._version = version
        self._newest = newest
        self._newest_tokens = 0
        self._newest_gap = 0.0
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
        """Add one micro-batch of N tokens.

        Args:
            logprobs: the policy's, float32 [N].
            distribution: log-probabilities of all tokens, float32 [N, V].
            loss: the micro-batch's part of the step's loss.
            kl: estimates [N]; None without a KL term.
            first: the weights are those that the step started from.
            extra: float [N] by name; their means are reported.
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
        if first:
            gaps = (logprobs - batch.sampler_logprobs).abs()
            newest = gaps[(batch.versions == self._newest) & (batch.versions >= 0)]
            self._newest_tokens += len(newest)
            self._newest_gap += float(newest.double().sum())
            if self._version is not None:
                self._gaps.append(gaps[batch.versions == self._version])

    def to_message(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return these totals as JSON values and tensors, for another rank's :meth:`merge`."""
        gaps = torch.cat(self._gaps).cpu() if self._gaps else torch.zeros(0)
        newest = [self._newest_tokens, self._newest_gap]
        return {"tokens": self._tokens, "sums": dict(self._sums), "newest": newest}, {"gaps": gaps}

    def merge(self, message: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Add what :meth:`to_message` of another rank returned."""
        self._tokens += message["tokens"]
        self._newest_tokens += message["newest"][0]
        self._newest_gap += message["newest"][1]
        for name, value in message["sums"].items():
            self._sums[name] += value
        self._gaps.append(tensors["gaps"])

    def metrics(self) -> dict[str, float]:
        """Return the part of the step's metrics that is over tokens."""
        tokens = max(self._tokens, 1)
        sums = dict.fromkeys(("loss", "ratio_mean", "clip_share", "kl", "entropy"), 0.0) | self._sums
        result = {name: total if name == "loss" else total / tokens for name, total in sums.items()}
        result["action_tokens"] = float(self._tokens)
        if self._newest_tokens:
            result["sampler_gap"] = self._newest_gap / self._newest_tokens
        gaps = torch.cat([gaps.cpu() for gaps in self._gaps]).double().numpy() if self._gaps else np.zeros(0)
        if len(gaps):
            result["logprob_gap_mean"] = float(gaps.mean())
            result["logprob_gap_p99"] = float(np.quantile(gaps, 0.99))
            result["logprob_gap_max"] = float(gaps.max())
        return result
