"""Takes whole steps of a real model in float64: losses from :mod:`papers`, one sequence at a time, and AdamW.

It knows nothing of micro-batches, packing, tables, ranks or PEFT. Adapters are added to the weights as W + α/r · B A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import papers
import torch
import variant_papers
from papers import Seq, Step
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from rft.training.batch import StepBatch

COEF = 0.1
"""Of a KL term."""
TAUGHT = 0.3
"""Of a teacher's term."""
WEIGHTS = {"format": 0.5, "right": 1.0}
"""Of rewards by name."""


@dataclass(frozen=True)
class Family:
    """An algorithm: its settings, and the same loss from its paper."""

    settings: Mapping[str, Any]
    paper: Callable[[Step, float], Tensor]
    """(groups, KL coefficient in the reward) → loss"""
    by_token: bool = False
    """``paper`` itself subtracts the KL term from each token's reward."""
    mean: str = "token"
    """Over what the loss is averaged: ``token``, ``sequence``, or ``pair``."""
    demonstrations: bool = False
    """The first sample of each group is an expert's."""
    warmup: int = 0
    """Steps in which the value head learns alone."""


def _ppo(step: Step, beta: float) -> Tensor:
    return papers.ppo(step, beta, whiten=False)


PPO = {"name": "ppo", "advantage_options": {"whiten": False}}
FAMILIES: dict[str, Family] = {
    "grpo": Family({"name": "grpo"}, lambda step, _: papers.grpo(step)),
    "gspo": Family({"name": "gspo"}, lambda step, _: papers.gspo(step), mean="sequence"),
    "gdpo": Family(
        {"name": "gdpo", "advantage_options": {"whiten": False}},
        lambda step, _: variant_papers.gdpo(step, WEIGHTS, whiten=False),
    ),
    "ppo": Family(PPO, _ppo, by_token=True),
    "ppo, warmed up": Family({**PPO, "value_warmup": 1}, _ppo, by_token=True, warmup=1),
    "decoupled_ppo": Family(
        {"name": "decoupled_ppo"},
        lambda step, _: papers.decoupled_ppo(step, lambda seq, t: np.exp(seq.start[t] - seq.mu[t])),
    ),
    "opmd": Family({"name": "opmd"}, lambda step, _: papers.opmd(step), mean="sequence"),
    "dpo": Family({"name": "dpo"}, lambda step, _: papers.dpo(step), mean="pair"),
    "luffy": Family({"name": "luffy"}, lambda step, _: variant_papers.luffy(step), demonstrations=True),
    "distill": Family({"name": "distill"}, lambda step, _: papers.distill(step)),
    "grpo, taught": Family(
        {"name": "grpo", "teacher_coef": TAUGHT, "teacher_term": "gap"},
        lambda step, _: variant_papers.taught(step, TAUGHT, "gap"),
    ),
    "grpo, taught in the loss": Family(
        {"name": "grpo", "teacher_coef": TAUGHT, "teacher_term": "k2"},
        lambda step, _: variant_papers.taught(step, TAUGHT, "k2"),
    ),
}
KL: dict[str, dict[str, Any]] = {
    "none": {},
    "loss": {"kl": "k2", "kl_coef": COEF},
    "reward": {"kl": "k3", "kl_coef": COEF, "kl_in": "reward"},
    "unbiased": {"kl": "k1", "kl_coef": COEF, "kl_unbiased": True},
}


@dataclass
class Weights:
    """What is trained, in float64."""

    base: dict[str, Tensor]
    trained: dict[str, Tensor]
    scale: float = 1.0
    """α/r of adapters, whose names end in ``lora_A.weight`` and ``lora_B.weight``."""
    adapted: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, Tensor]:
        """Return the model's weights, with adapters added."""
        whole = dict(self.base)
        whole.update({name: tensor for name, tensor in self.trained.items() if name in self.base})
        for layer in self.adapted:
            down, up = (self.trained[f"{layer}.lora_{one}.weight"] for one in "AB")
            whole[f"{layer}.weight"] = self.base[f"{layer}.weight"] + self.scale * up @ down
        return whole


def load(folder: Path, adapters: Mapping[str, Tensor] | None, alpha_over_rank: float) -> tuple[nn.Module, Weights]:
    """Load a model in float64. ``adapters`` are those that training starts from, by PEFT's names."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    base = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if adapters is None:
        return model, Weights(base, {name: tensor.clone().requires_grad_() for name, tensor in base.items()})
    own = {
        name.removeprefix("base_model.model."): tensor.double().requires_grad_() for name, tensor in adapters.items()
    }
    layers = sorted({name.rpartition(".lora_")[0] for name in own})
    return model, Weights(base, own, alpha_over_rank, layers)


class DoubleTrainer:
    """Takes steps as an engine does, and reports the loss and the gradient's norm before clipping."""

    def __init__(
        self,
        folder: Path,
        family: Family,
        place: str,
        *,
        reference: Path,
        teacher: Path,
        adapters: Mapping[str, Tensor] | None,
        alpha_over_rank: float,
        minibatches: int,
        rate: float,
    ) -> None:
        self.model, self.weights = load(folder, adapters, alpha_over_rank)
        # With adapters the reference is the model without them.
        self.reference = load(folder if adapters is not None else reference, None, 1.0)
        self.teacher = load(teacher, None, 1.0)
        self.family, self.place, self.minibatches = family, place, minibatches
        hidden = self.model.get_output_embeddings().weight.shape[1]
        self.head = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (hidden, 1)]
        self.optimizers = [
            torch.optim.AdamW(parameters, lr=factor * rate, betas=(0.9, 0.95), weight_decay=0.0)
            for parameters, factor in ((self.weights.trained.values(), 1.0), (self.head, 10.0))
        ]

    def step(self, number: int, batch: StepBatch) -> dict[str, float]:
        """Take one step; returns the means over its updates."""
        begun = self._sequences(batch)
        losses, norms = [], []
        for groups in self._parts(batch, number):
            step = self._sequences(batch, of_others=False)
            for now, then in zip(step, begun, strict=True):
                now.ref, now.teacher = then.ref, then.teacher
                now.start = [float(p.detach()) for p in then.logp]
                now.old_values = [float(v.detach()) for v in then.values]
            loss = self._loss([[step[i] for i in np.flatnonzero(batch.groups == group)] for group in groups], number)
            losses.append(float(loss.detach()))
            loss.backward()
            norms.append(self._update(trains_policy=number > self.family.warmup))
        return {"loss": papers.mean(losses), "grad_norm": papers.mean(norms)}

    def _update(self, *, trains_policy: bool) -> float:
        trained = list(self.weights.trained.values())
        if not trains_policy:
            for tensor in trained:
                tensor.grad = None
        norm = float(nn.utils.clip_grad_norm_(trained, 1.0))
        nn.utils.clip_grad_norm_(self.head, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def _parts(self, batch: StepBatch, number: int) -> Iterator[list[int]]:
        order = np.arange(int(batch.groups.max()) + 1)
        if self.minibatches > 1:
            order = np.random.default_rng([number, 0]).permutation(order)
        yield from (sorted(part.tolist()) for part in np.array_split(order, self.minibatches))

    def _sequences(self, batch: StepBatch, *, of_others: bool = True) -> list[Seq]:
        sequences = []
        for i, payload in enumerate(batch.payloads):
            tokens = torch.from_numpy(payload.tokens.astype(np.int64))
            actions = np.flatnonzero(payload.action_mask[1:])
            logp, hidden = _run(self.model, self.weights, tokens, actions)
            with torch.no_grad():
                ref, teacher = (
                    _run(*other, tokens, actions)[0].tolist() if of_others else []
                    for other in (self.reference, self.teacher)
                )
            sequences.append(
                Seq(
                    float(batch.rewards[i]),
                    list(logp),
                    payload.logprobs[actions + 1].tolist(),
                    ref,
                    teacher=teacher,
                    values=list(hidden @ self.head[0] + self.head[1]),
                    demonstration=batch.kinds[i] == "demonstration",
                    terms=dict(zip(batch.reward_names, batch.reward_values[i].tolist(), strict=True)),
                )
            )
        return sequences

    def _loss(self, step: Step, number: int) -> Tensor:
        family, beta = self.family, 0.0
        if self.place == "reward":
            beta = COEF
            if not family.by_token:
                for seq in papers.all_sequences(step):
                    seq.reward -= COEF * sum(_k3(p, q) for p, q in zip(seq.start, seq.ref, strict=True))
        if number <= family.warmup:
            return papers.value_loss(step, beta)
        loss = family.paper(step, beta)
        return loss + self._kl_term(step) if self.place in ("loss", "unbiased") else loss

    def _kl_term(self, step: Step) -> Tensor:
        chosen = papers.all_sequences(step)
        if self.family.mean == "pair":
            pairs = [(max(g, key=lambda s: s.reward), min(g, key=lambda s: s.reward)) for g in step]
            chosen = [seq for best, worst in pairs if best.reward > worst.reward for seq in (best, worst)]
        tokens = sum(map(len, chosen))
        total = torch.zeros((), dtype=torch.float64)
        for seq in chosen:
            weight = 1 / tokens if self.family.mean == "token" else 1 / (len(seq) * len(chosen))
            for logp, ref, mu in zip(seq.logp, seq.ref, seq.mu, strict=True):
                if self.place == "loss":
                    total = total + COEF * weight * (logp - ref) ** 2 / 2
                else:
                    ratio = 1.0 if seq.demonstration else torch.exp(logp - mu)
                    total = total + COEF * weight * ratio * (logp - ref)
        return total


def _run(model: nn.Module, weights: Weights, tokens: Tensor, actions: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [N] of the tokens after ``actions``, and the last hidden states there [N, H]."""
    out = functional_call(
        model, weights.whole(), (), {"input_ids": tokens[None, :-1], "output_hidden_states": True}, tie_weights=True
    )
    distribution = torch.log_softmax(out.logits[0, actions], -1)
    return distribution.gather(1, tokens[actions + 1][:, None])[:, 0], out.hidden_states[-1][0, actions]


def _k3(start: float, ref: float) -> float:
    return float(np.exp(ref - start) - (ref - start) - 1)
