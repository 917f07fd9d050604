"""Numbers of a step's tokens as the step began: made by passes without gradient before its first update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rft.training.batch import MicroBatch, StepBatch
from rft.training.likelihood import Likelihood, likelihood
from rft.training.sample import Payload
from rft.training.values import ValueHead

Forward = Callable[[MicroBatch], Tensor]
"""Runs a model: float32 logits [N, V] at the places that predict a micro-batch's tokens to learn from, as the model
gives them (no temperature applied). The policy's carry a gradient, those of other models none."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a step; those that the objective does not ask for may be None."""

    policy: Forward
    reference: Forward | None = None
    """The initial weights."""
    teacher: Forward | None = None


class Sampling:
    """How the sequences of a step were sampled, on the device of the logits."""

    def __init__(self, batch: StepBatch, device: torch.device) -> None:
        greedy = batch.temperatures == 0
        self._temperatures = torch.from_numpy(np.where(greedy, 1.0, batch.temperatures)).float().to(device)
        top_ps = np.where(greedy, 1.0, batch.top_ps)
        self._top_ps = torch.from_numpy(top_ps).float().to(device) if (top_ps < 1).any() else None

    def likelihood(self, logits: Tensor, piece: MicroBatch) -> Likelihood:
        """Of the tokens of ``piece`` under ``logits`` [N, V]."""
        places = piece.members[piece.sequences]
        top_ps = None if self._top_ps is None else self._top_ps[places]
        return likelihood(logits, piece.targets, self._temperatures[places], top_ps)


class Scores:
    """One float32 [M] for each of ``wanted``: ``policy``, ``plain`` (of the policy, without top-p), ``reference``,
    ``teacher``, ``values``. Ranks that score a part each add up their tables: what is not theirs is 0."""

    def __init__(self, batch: StepBatch, wanted: frozenset[str], device: torch.device) -> None:
        self.batch = batch
        self._sampling = Sampling(batch, device)
        self.tables = {name: torch.zeros(int(batch.counts.sum()), device=device) for name in sorted(wanted)}

    @torch.no_grad()
    def add(self, piece: MicroBatch, models: Models, head: ValueHead | None = None) -> None:
        """Fill in the tokens of one micro-batch of ``batch``."""
        if self.tables.keys() & {"policy", "plain", "values"}:
            found = self._sampling.likelihood(models.policy(piece), piece)
            self._put("policy", piece, found.sampled)
            self._put("plain", piece, found.plain)
            if head is not None:
                self._put("values", piece, head.values(piece))
        for name, model in (("reference", models.reference), ("teacher", models.teacher)):
            if name in self.tables:
                if model is None:
                    raise RuntimeError(f"the objective needs a {name} model")
                self._put(name, piece, self._sampling.likelihood(model(piece), piece).plain)

    def _put(self, name: str, piece: MicroBatch, values: Tensor) -> None:
        if name in self.tables:
            self.tables[name][piece.tokens] = values.to(self.tables[name].dtype)


def mismatched(batch: StepBatch) -> StepBatch | None:
    """Each prompt with the answer to the next one of another group, for KTO; None when there is only one group.

    What follows a prompt is all from the first token on that the policy wrote.
    """
    size = len(batch)
    if len(np.unique(batch.groups)) < 2:
        return None
    payloads = []
    for i in range(size):
        j = next(k % size for k in range(i + 1, i + size) if batch.groups[k % size] != batch.groups[i])
        payloads.append(_graft(batch.payloads[i], batch.payloads[j]))
    return StepBatch(
        payloads, batch.rewards, batch.groups, batch.kinds, batch.temperatures, batch.top_ps, batch.truncated
    )


def _graft(prompt: Payload, answer: Payload) -> Payload:
    head, tail = int(prompt.action_mask.argmax()), int(answer.action_mask.argmax())
    return Payload(
        tokens=np.concatenate([prompt.tokens[:head], answer.tokens[tail:]]),
        action_mask=np.concatenate([prompt.action_mask[:head], answer.action_mask[tail:]]),
        logprobs=np.concatenate([prompt.logprobs[:head], answer.logprobs[tail:]]),
        versions=np.concatenate([prompt.versions[:head], answer.versions[tail:]]),
    )
