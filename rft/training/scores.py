"""Scores the tokens of a step before its first update, in passes without gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rft.training.batch import MicroBatch, StepBatch
from rft.training.sample import Payload
from rft.training.token_logprobs import TokenLogprobs, entropies, token_logprobs
from rft.training.value_head import ValueHead

Forward = Callable[[MicroBatch], Tensor]
"""Runs a model and returns its logits at the positions that predict the micro-batch's action tokens: float32 [N, V], no
temperature applied. The policy's logits carry a gradient, those of other models do not."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a step. Those that the objective does not use may be None."""

    policy: Forward
    reference: Forward | None = None
    """The initial weights."""
    teacher: Forward | None = None


class SamplingSettings:
    """How each sequence of a step was sampled, on the device of the logits."""

    def __init__(self, batch: StepBatch, device: torch.device) -> None:
        greedy = batch.temperatures == 0
        self._temperatures = torch.from_numpy(np.where(greedy, 1.0, batch.temperatures)).float().to(device)
        top_ps = np.where(greedy, 1.0, batch.top_ps)
        self._top_ps = torch.from_numpy(top_ps).float().to(device) if (top_ps < 1).any() else None

    def logprobs(self, logits: Tensor, micro_batch: MicroBatch) -> TokenLogprobs:
        """Compute the log-probabilities of the tokens of ``micro_batch`` under ``logits`` [N, V]."""
        indices = micro_batch.batch_indices[micro_batch.sequences]
        top_ps = None if self._top_ps is None else self._top_ps[indices]
        return token_logprobs(logits, micro_batch.targets, self._temperatures[indices], top_ps)


class Scores:
    """Tables of numbers by token, float32 [M] each.

    Possible names are ``policy`` (log-probabilities), ``plain`` (the policy's without top-p), ``entropy`` (the
    policy's), ``reference``, ``teacher`` and ``values``. A rank that scores a part of the tokens leaves 0 at the
    others, so that the ranks' tables can be summed.
    """

    def __init__(self, batch: StepBatch, names: frozenset[str], device: torch.device) -> None:
        self.batch = batch
        self._settings = SamplingSettings(batch, device)
        self.tables = {name: torch.zeros(int(batch.counts.sum()), device=device) for name in sorted(names)}

    @torch.no_grad()
    def add(self, micro_batch: MicroBatch, models: Models, head: ValueHead | None = None) -> None:
        """Score the tokens of one micro-batch of ``batch``. Raises RuntimeError if a model is missing."""
        if self.tables.keys() & {"policy", "plain", "entropy", "values"}:
            found = self._settings.logprobs(models.policy(micro_batch), micro_batch)
            self._put("policy", micro_batch, found.nucleus)
            self._put("plain", micro_batch, found.plain)
            if "entropy" in self.tables:
                self._put("entropy", micro_batch, entropies(found.distribution))
            if head is not None:
                self._put("values", micro_batch, head.values(micro_batch))
        for name, model in (("reference", models.reference), ("teacher", models.teacher)):
            if name in self.tables:
                if model is None:
                    raise RuntimeError(f"the objective needs a {name} model")
                self._put(name, micro_batch, self._settings.logprobs(model(micro_batch), micro_batch).plain)

    def _put(self, name: str, micro_batch: MicroBatch, values: Tensor) -> None:
        if name in self.tables:
            self.tables[name][micro_batch.token_indices] = values.to(self.tables[name].dtype)


def mismatched_batch(batch: StepBatch) -> StepBatch | None:
    """Combine each prompt with the answer to the next prompt of another group, for KTO's reference point.

    The answer begins at the first token that the policy wrote. Returns None if there is only one group.
    """
    size = len(batch)
    if len(np.unique(batch.groups)) < 2:
        return None
    payloads = []
    for i in range(size):
        j = next(k % size for k in range(i + 1, i + size) if batch.groups[k % size] != batch.groups[i])
        payloads.append(_join(batch.payloads[i], batch.payloads[j]))
    return StepBatch(
        payloads, batch.rewards, batch.groups, batch.kinds, batch.temperatures, batch.top_ps, batch.truncated
    )


def _join(prompt: Payload, answer: Payload) -> Payload:
    head, tail = int(prompt.action_mask.argmax()), int(answer.action_mask.argmax())
    return Payload(
        tokens=np.concatenate([prompt.tokens[:head], answer.tokens[tail:]]),
        action_mask=np.concatenate([prompt.action_mask[:head], answer.action_mask[tail:]]),
        logprobs=np.concatenate([prompt.logprobs[:head], answer.logprobs[tail:]]),
        versions=np.concatenate([prompt.versions[:head], answer.versions[tail:]]),
    )
