"""What a step minimises: from a batch and the models' logits to the number to differentiate, for any engine.

An engine runs models and an optimiser; what it runs them for is decided here::

    lesson = objective.begin(number, batch, version=version, device=device)
    for scores in lesson.scores:                              # passes without gradient, before the first update
        for piece in micro_batches(scores.batch, max_tokens):
            scores.add(piece, models, objective.value_head)
    for update in lesson.updates():
        for piece in micro_batches(batch, max_tokens, update.units):
            lesson.loss(update, piece, models).backward()
        ...                                                   # one optimiser step

All that couples sequences (advantages, the weight of each token) is made once for the whole step, so that neither the
cut into micro-batches nor the number of processes changes the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rft.algorithms.compose import Algorithm, compose
from rft.algorithms.inputs import TokenLoss, Tokens
from rft.config import Config
from rft.training.batch import MicroBatch, StepBatch
from rft.training.likelihood import Likelihood
from rft.training.metrics import TokenTotals
from rft.training.plan import Plan, Update, make_plan
from rft.training.scores import Forward, Models, Sampling, Scores, mismatched
from rft.training.values import ValueHead, checksum, value_loss

__all__ = ["Forward", "Models", "Objective", "StepLoss", "Update"]


class Objective:
    """An algorithm as an engine uses it."""

    def __init__(self, algorithm: Algorithm, *, epochs: int = 1, minibatches: int = 1) -> None:
        """``epochs`` and ``minibatches`` as in ``[trainer]``: their product is the number of updates a step."""
        self.algorithm = algorithm
        self.epochs = epochs
        self.minibatches = minibatches
        self.value_head: ValueHead | None = None

    @classmethod
    def of(cls, config: Config) -> Objective:
        """The objective that a trainer's configuration names. Raises ConfigError."""
        algorithm = compose(config.algorithm, max_tokens=config.rollout.max_tokens)
        return cls(algorithm, epochs=config.trainer.epochs, minibatches=config.trainer.minibatches)

    def attach(self, model: Any) -> None:
        """Make what is trained beside ``model`` (a transformers model). Raises PolicyError."""
        if self.algorithm.values is not None:
            self.value_head = ValueHead(model, detach=self.algorithm.values.detach)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What :meth:`attach` made, by name; to be optimised at ``lr_factor`` times the policy's learning rate and
        saved with the optimiser. Empty for most algorithms."""
        if self.value_head is None:
            return {}
        return {f"value_head.{name}": parameter for name, parameter in self.value_head.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """The values of :meth:`parameters`, as a checkpoint keeps them with the optimiser's state."""
        return {f"{name}/value": parameter.detach() for name, parameter in self.parameters().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` once returned, among others."""
        for name, parameter in self.parameters().items():
            if f"{name}/value" in tensors:
                parameter.data.copy_(tensors[f"{name}/value"])

    @property
    def lr_factor(self) -> float:
        """See :meth:`parameters`."""
        return self.algorithm.values.lr_factor if self.algorithm.values is not None else 1.0

    @property
    def needs_reference(self) -> bool:
        """Whether ``Models.reference`` must be there."""
        return self.algorithm.kl is not None or self.algorithm.needs.reference

    @property
    def teacher(self) -> str | None:
        """Folder of the model for ``Models.teacher``, if one must be there."""
        return self.algorithm.teacher

    def begin(self, number: int, batch: StepBatch, *, version: int | None, device: torch.device) -> StepLoss:
        """What step ``number`` (from 1) teaches.

        Args:
            version: the weight version that the policy is now, None while it is between two versions; tokens of that
                version must have nearly the sampler's log-probabilities (``logprob_gap_*``).
            device: where the models' logits will be.
        """
        return StepLoss(self, number, batch, version, device)


class StepLoss:
    """One step's part of the objective. All ranks make the same one; each computes its share of the micro-batches."""

    def __init__(
        self, objective: Objective, number: int, batch: StepBatch, version: int | None, device: torch.device
    ) -> None:
        self._objective = objective
        self._algorithm = objective.algorithm
        self._number = number
        self._batch = batch
        self._device = device
        self._sampling = Sampling(batch, device)
        self._own = Scores(batch, self._wanted(), device)
        self._grafted = self._graft()
        self.scores = [scores for scores in (self._own, self._grafted) if scores is not None and scores.tables]
        """Passes to make before :meth:`updates`: most algorithms need none."""
        self._plan: Plan | None = None
        self._baseline = 0.0
        self._totals = TokenTotals(version)
        demonstrations = self._algorithm.demonstration_loss is not None
        imitated = np.array([demonstrations and kind == "demonstration" for kind in batch.kinds])
        self._imitated = torch.from_numpy(imitated).to(device) if imitated.any() else None
        self._rewards = torch.from_numpy(batch.rewards).float().to(device)
        self._groups = torch.from_numpy(batch.groups).to(device)

    def updates(self) -> list[Update]:
        """The step's optimiser updates, in order. Call once, when ``scores`` are complete."""
        if self._grafted is not None:
            tables = self._grafted.tables
            gaps = (tables["plain"] - tables["reference"]).double().sum() / len(self._batch)
            self._baseline = max(float(gaps), 0.0)
        objective = self._objective
        self._plan = make_plan(
            self._algorithm,
            self._batch,
            {name: table.double().cpu().numpy() for name, table in self._own.tables.items()},
            number=self._number,
            epochs=objective.epochs,
            minibatches=objective.minibatches,
            device=self._device,
        )
        return self._plan.updates

    def loss(self, update: Update, piece: MicroBatch, models: Models, *, counted: bool = True) -> Tensor:
        """The share of ``piece`` in the loss of ``update``: scalar, the shares sum to the loss.

        ``counted``: it enters the step's metrics.
        """
        algorithm, plan = self._algorithm, self._plan
        assert plan is not None, "updates() comes first"
        found = self._sampling.likelihood(models.policy(piece), piece)
        now = found.plain if algorithm.needs.reference else found.sampled
        old = self._old(piece, found)
        token = self._token_loss(piece, now, old, plan.advantages[piece.tokens], models)
        loss, extra, estimates = token.loss, {}, None
        if algorithm.correction is not None:
            weights = self._correction(algorithm.correction, piece, old)
            loss = loss * weights
            extra["correction_mean"] = weights
        if algorithm.kl is not None:
            estimates = algorithm.kl(found.plain, self._reference(piece, models))
            if not algorithm.kl_in_reward:
                loss = loss + algorithm.kl_coef * estimates
        if algorithm.entropy_coef:
            loss = loss + algorithm.entropy_coef * (found.distribution.exp() * found.distribution).sum(dim=-1)
        if algorithm.values is not None:
            errors = self._value_errors(piece, algorithm.values.clip, plan)
            loss = loss + algorithm.values.coef * errors
            extra["value_loss"] = errors.detach()
        if found.outside is not None:
            extra["outside_nucleus"] = found.outside.float()
        total = (loss * update.weights[piece.tokens]).sum()
        if not counted:
            return total
        self._totals.add(
            piece,
            token,
            found.sampled.detach(),
            found.distribution.detach(),
            float(total.detach()) / len(plan.updates),
            estimates,
            first=update.first,
            extra=extra,
        )
        return total

    @property
    def totals(self) -> TokenTotals:
        """Sums over the micro-batches so far, to be added up over ranks before :meth:`metrics`."""
        return self._totals

    def metrics(self) -> dict[str, float]:
        """The objective's part of the step's metrics (:mod:`rft.training.metrics`), when all losses are computed."""
        batch, plan = self._batch, self._plan
        assert plan is not None, "updates() comes first"
        metrics = self._totals.metrics() | {
            "reward_mean": float(batch.rewards.mean()),
            "reward_std": float(batch.rewards.std()),
            "advantage_abs_mean": plan.advantage_abs_mean,
            "tokens": float(sum(len(payload.tokens) for payload in batch.payloads)),
            "groups": float(len(np.unique(batch.groups))),
            "experiences": float(len(batch)),
            "updates": float(len(plan.updates)),
        }
        if self._imitated is not None:
            metrics["demonstration_share"] = plan.demonstration_share
        if self._grafted is not None:
            metrics["kl_baseline"] = self._baseline
        if beside := self._objective.parameters():
            metrics["value_crc32"] = float(checksum(beside.values()))
        return metrics

    def _wanted(self) -> frozenset[str]:
        algorithm, wanted = self._algorithm, set()
        several = self._objective.epochs * self._objective.minibatches > 1
        if algorithm.kl is not None and algorithm.kl_in_reward:
            wanted |= {"plain", "reference"}
        if self._objective.needs_reference and several:
            wanted.add("reference")
        # With one update the policy as the step began is the policy that the loss is taken of.
        if (algorithm.old_is_trainers and several) or algorithm.needs.policy:
            wanted.add("policy")
        if algorithm.needs.values:
            wanted.add("values")
        if algorithm.needs.teacher:
            wanted |= {"plain", "teacher"}
        return frozenset(wanted)

    def _graft(self) -> Scores | None:
        if not self._algorithm.needs.baseline:
            return None
        other = mismatched(self._batch)
        return None if other is None else Scores(other, frozenset({"plain", "reference"}), self._device)

    def _old(self, piece: MicroBatch, found: Likelihood) -> Tensor:
        if not self._algorithm.old_is_trainers:
            return piece.behaviour
        table = self._own.tables.get("policy")
        return found.sampled.detach() if table is None else table[piece.tokens]

    def _reference(self, piece: MicroBatch, models: Models) -> Tensor:
        table = self._own.tables.get("reference")
        if table is not None:
            return table[piece.tokens]
        if models.reference is None:
            raise RuntimeError("the objective needs a reference model")
        with torch.no_grad():
            return self._sampling.likelihood(models.reference(piece), piece).plain

    def _token_loss(self, piece: MicroBatch, now: Tensor, old: Tensor, advantages: Tensor, models: Models) -> TokenLoss:
        algorithm = self._algorithm
        tokens = Tokens(
            logprobs=now,
            old=old,
            advantages=advantages,
            sequences=piece.sequences,
            rewards=self._rewards[piece.members],
            groups=self._groups[piece.members],
            reference=self._reference(piece, models) if algorithm.needs.reference else None,
            baseline=self._baseline,
        )
        token = algorithm.loss(tokens)
        if self._imitated is None or algorithm.demonstration_loss is None:
            return token
        shown = self._imitated[piece.members][piece.sequences]
        imitation = algorithm.demonstration_loss(tokens)
        return TokenLoss(
            torch.where(shown, imitation.loss, token.loss),
            torch.where(shown, torch.ones_like(token.ratio), token.ratio),
            torch.where(shown, imitation.clipped, token.clipped),
        )

    def _correction(self, function: Any, piece: MicroBatch, old: Tensor) -> Tensor:
        log_ratios = (old - piece.behaviour).detach()
        if self._algorithm.correction_of_sequences:
            sums = torch.zeros(len(piece.members), dtype=log_ratios.dtype, device=log_ratios.device)
            log_ratios = sums.index_add(0, piece.sequences, log_ratios)[piece.sequences]
        weights: Tensor = function(log_ratios)
        if self._imitated is not None:
            weights = torch.where(self._imitated[piece.members][piece.sequences], torch.ones_like(weights), weights)
        return weights

    def _value_errors(self, piece: MicroBatch, clip: float, plan: Plan) -> Tensor:
        head = self._objective.value_head
        if head is None or plan.returns is None:
            raise RuntimeError("attach() comes first")
        before = self._own.tables["values"][piece.tokens]
        return value_loss(head.values(piece), before, plan.returns[piece.tokens], clip=clip)
