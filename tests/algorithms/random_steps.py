"""Builds random steps whose logits are a table with one row for each token: the objective without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import papers
import torch
from torch import Tensor, nn

from rft.algorithms.compose import compose
from rft.config import AlgorithmConfig
from rft.training.batch import MicroBatch, StepBatch
from rft.training.micro_batches import make_micro_batches
from rft.training.objective import Objective
from rft.training.sample import Payload
from rft.training.scores import Models

VOCABULARY, HIDDEN, LIMIT = 7, 5, 10
"""LIMIT is rollout.max_tokens."""


class Policy(nn.Module):
    """Hidden states [M, H] by token, and an output layer over them."""

    def __init__(self, tokens: int, numbers: np.random.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.from_numpy(numbers.normal(0, 1, (tokens, HIDDEN))).float())
        self.output = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.output.weight.data = torch.from_numpy(numbers.normal(0, 1, (VOCABULARY, HIDDEN))).float()

    def get_output_embeddings(self) -> nn.Linear:
        return self.output

    def forward(self, micro_batch: MicroBatch) -> Tensor:
        logits: Tensor = self.output(self.hidden[micro_batch.token_indices])
        return logits


@dataclass
class Case:
    batch: StepBatch
    policy: Policy
    reference: Tensor
    """Logits [M, V]"""
    teacher: Tensor
    mismatched: Tensor
    """[2, M', V]: logits of policy and reference where prompts have other prompts' answers."""
    value_weight: Tensor
    """[H]"""


def random_case(seed: int, *, kinds: str = "rollout", far: bool = True) -> Case:
    """Make 3 to 5 groups of 1 to 5 sequences of different lengths, some of several turns.

    Args:
        far: a tenth of the ratios is extreme.
    """
    numbers = np.random.default_rng(seed)
    sizes = numbers.integers(1, 6, int(numbers.integers(3, 6)))
    sizes[:2] = [2, 4]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    payloads, targets = [], []
    for _ in groups:
        length = int(numbers.integers(3, 15))
        mask = numbers.integers(0, 2, length).astype(np.uint8)
        mask[0], mask[1], mask[-1] = 0, 0, 1
        tokens = numbers.integers(0, VOCABULARY, length).astype(np.int32)
        payloads.append(Payload(tokens, mask, np.zeros(length, np.float32), np.where(mask, 0, -1).astype(np.int32)))
        targets += list(tokens[1:][mask[1:] == 1])
    policy = Policy(len(targets), numbers)
    size = len(groups)
    temperatures = numbers.choice([1.0, 0.7, 0.0], size)
    batch = StepBatch(
        payloads=payloads,
        rewards=numbers.choice([-1.0, 0.0, 0.25, 1.0], size),
        groups=groups,
        kinds=tuple("demonstration" if kinds == "mixed" and i % 3 == 0 else "rollout" for i in range(size)),
        temperatures=temperatures,
        top_ps=np.ones(size),
        truncated=numbers.integers(0, 2, size) == 1,
    )
    with torch.no_grad():
        logits = policy.output(policy.hidden).double().numpy()
    index = 0
    for payload, temperature in zip(payloads, temperatures, strict=True):
        for t in np.flatnonzero(payload.action_mask):
            row = logits[index] / (temperature or 1.0)
            true = row[payload.tokens[t]] - np.log(np.exp(row).sum())
            noise = numbers.normal(0, 0.3) if not far or numbers.random() > 0.1 else numbers.choice([-6.0, 6.0])
            payload.logprobs[t] = min(true + noise, -1e-4)
            index += 1
    tables = numbers.normal(0, 1, (4, 4 * len(targets), VOCABULARY)).astype(np.float32)
    return Case(
        batch,
        policy,
        torch.from_numpy(tables[0]),
        torch.from_numpy(tables[1]),
        torch.from_numpy(tables[2:]),
        torch.from_numpy(numbers.normal(0, 0.3, HIDDEN)).float(),
    )


@dataclass
class Result:
    loss: float
    gradients: dict[str, Tensor]
    metrics: dict[str, float]
    baseline: float


def objective_of(case: Case, *, epochs: int = 1, minibatches: int = 1, **algorithm: object) -> Objective:
    config = AlgorithmConfig(**algorithm)
    objective = Objective(compose(config, max_tokens=LIMIT), epochs=epochs, minibatches=minibatches)
    objective.attach(case.policy)
    if objective.value_head is not None:
        objective.value_head.linear.weight.data[:] = case.value_weight
    return objective


def run(case: Case, *, number: int = 1, max_tokens: int = 40, **algorithm: object) -> Result:
    """Compute loss and gradients of one update through the objective, in small micro-batches."""
    objective = objective_of(case, **algorithm)
    step_loss = objective.begin(number, case.batch, version=0, device=torch.device("cpu"))
    for scores in step_loss.scores:
        mismatched = scores.batch is not case.batch
        policy = (lambda p: case.mismatched[0][p.token_indices]) if mismatched else case.policy
        reference = case.mismatched[1] if mismatched else case.reference
        models = Models(policy, lambda p, r=reference: r[p.token_indices], lambda p: case.teacher[p.token_indices])
        for micro_batch in make_micro_batches(scores.batch, max_tokens):
            scores.add(micro_batch, models, objective.value_head)
    models = Models(case.policy, lambda p: case.reference[p.token_indices], lambda p: case.teacher[p.token_indices])
    (update,) = step_loss.updates()
    parameters = dict(case.policy.named_parameters()) | objective.parameters()
    for parameter in parameters.values():
        parameter.grad = None
    total = 0.0
    for micro_batch in make_micro_batches(case.batch, max_tokens, update.units):
        loss = step_loss.loss(update, micro_batch, models)
        loss.backward()
        total += float(loss.detach())
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in parameters.items()}
    return Result(total, gradients, step_loss.metrics(), step_loss._baseline)


def written_out(case: Case) -> tuple[papers.Step, dict[str, Tensor]]:
    """Return the same step for :mod:`papers`, and the float64 leaves that have its gradients."""
    leaves = {name: p.detach().double().requires_grad_(True) for name, p in case.policy.named_parameters()}
    leaves["value_head.linear.weight"] = case.value_weight.double()[None].requires_grad_(True)
    leaves["value_head.linear.bias"] = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    batch, index = case.batch, 0
    step: papers.Step = [[] for _ in range(int(batch.groups.max()) + 1)]
    for i, payload in enumerate(batch.payloads):
        temperature = float(batch.temperatures[i]) or 1.0
        seq = papers.Seq(
            float(batch.rewards[i]), [], [], [], demonstration=batch.kinds[i] == "demonstration",
            truncated=bool(batch.truncated[i]),
            terms={k: v for k, v in zip(batch.reward_names, batch.reward_values[i], strict=True) if not np.isnan(v)},
        )  # fmt: skip
        for t in range(1, len(payload.tokens)):
            if not payload.action_mask[t]:
                continue
            token = int(payload.tokens[t])
            hidden = leaves["hidden"][index]
            logits = leaves["output.weight"] @ hidden / temperature
            seq.logp.append(logits[token] - torch.logsumexp(logits, 0))
            seq.entropy.append(-sum(p * torch.log(p) for p in torch.softmax(logits, 0)))
            seq.start.append(float(seq.logp[-1].detach()))
            seq.mu.append(float(payload.logprobs[t]))
            for name, table in (("ref", case.reference), ("teacher", case.teacher)):
                other = table[index].double() / temperature
                getattr(seq, name).append(float(other[token] - torch.logsumexp(other, 0)))
            value = (leaves["value_head.linear.weight"][0] * hidden).sum() + leaves["value_head.linear.bias"][0]
            seq.values.append(value)
            seq.old_values.append(float(value.detach()))
            index += 1
        step[int(batch.groups[i])].append(seq)
    return step, leaves


def assert_equal(case: Case, result: Result, paper: Callable[[papers.Step], Tensor]) -> None:
    """Compare the loss to 1e-5 relative, and each layer's gradient to 1e-5 of its largest element."""
    step, leaves = written_out(case)
    loss = paper(step)
    loss.backward()
    assert abs(result.loss - float(loss.detach())) <= 1e-5 * max(abs(float(loss.detach())), 1e-2)
    for name, gradient in result.gradients.items():
        wanted = leaves[name].grad
        assert wanted is not None, name
        layer = name.rpartition(".")[0]
        scale = max(
            float(leaf.grad.abs().max())
            for other, leaf in leaves.items()
            if leaf.grad is not None and other.rpartition(".")[0] == layer
        )
        assert scale > 0, name
        error = float((gradient.double() - wanted).abs().max()) / scale
        assert error <= 1e-5, (name, error)
