"""Computes the loss of one step, micro-batch by micro-batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.algorithm import Algorithm
from rft.algorithms.corrections import at_level, off_policy_mask
from rft.algorithms.inputs import TokenBatch, TokenLoss
from rft.algorithms.kl import unbiased
from rft.training.batch import MicroBatch, StepBatch
from rft.training.metrics import TokenTotals
from rft.training.plan import OptimizerUpdate, StepPlan, plan_step
from rft.training.policy_shift import PolicyShift, measures_shift
from rft.training.scores import Models, SamplingSettings, Scores, mismatched_batch
from rft.training.token_logprobs import TokenLogprobs, entropies
from rft.training.value_head import ValueHead, checksum, value_loss


class StepLoss:
    """The loss of one step. All ranks make the same one, and each computes its part of the micro-batches."""

    def __init__(
        self,
        algorithm: Algorithm,
        number: int,
        batch: StepBatch,
        *,
        epochs: int,
        minibatches: int,
        value_head: ValueHead | None,
        shift: bool = False,
        version: int | None,
        device: torch.device,
    ) -> None:
        """See :meth:`rft.training.objective.Objective.begin`."""
        self._algorithm = algorithm
        self._number = number
        self._batch = batch
        self._epochs = epochs
        self._minibatches = minibatches
        self._value_head = value_head
        self._device = device
        self.trains_policy = algorithm.value_head is None or number > algorithm.value_head.warmup
        """False in the value head's warm-up: no gradient reaches the policy then, and its optimizer must not step."""
        self._settings = SamplingSettings(batch, device)
        self._own_scores = Scores(batch, _tables_needed(algorithm, several_updates=epochs * minibatches > 1), device)
        self._baseline_scores = _baseline_scores(algorithm, batch, device)
        all_scores = (self._own_scores, self._baseline_scores)
        self.scores = [scores for scores in all_scores if scores is not None and scores.tables]
        """What must be scored before :meth:`updates`."""
        trained = number - (algorithm.value_head.warmup if algorithm.value_head is not None else 0)
        self._shift = PolicyShift(batch, device) if shift and trained > 0 and measures_shift(trained) else None
        self.final_scores: list[Scores] = []
        """What must be scored after the last update."""
        if self._shift is not None:
            self.scores.append(self._shift.before)
            self.final_scores.append(self._shift.after)
        self._plan: StepPlan | None = None
        self._baseline = 0.0
        self._totals = TokenTotals(version, batch.newest_version)
        separate = algorithm.treats_demonstrations
        demonstrated = np.array([separate and kind == "demonstration" for kind in batch.kinds])
        self._demonstrated = torch.from_numpy(demonstrated).to(device) if demonstrated.any() else None
        self._sampled = torch.tensor([kind == "rollout" for kind in batch.kinds], device=device)
        self._rewards = torch.from_numpy(batch.rewards).float().to(device)
        self._groups = torch.from_numpy(batch.groups).to(device)

    def updates(self) -> list[OptimizerUpdate]:
        """Plan the step and return its optimizer updates, in order. Call it once, when ``scores`` are complete."""
        if self._baseline_scores is not None:
            tables = self._baseline_scores.tables
            log_ratios = (tables["plain"] - tables["reference"]).double().sum() / len(self._batch)
            self._baseline = max(float(log_ratios), 0.0)
        self._plan = plan_step(
            self._algorithm,
            self._batch,
            {name: table.double().cpu().numpy() for name, table in self._own_scores.tables.items()},
            number=self._number,
            epochs=self._epochs,
            minibatches=self._minibatches,
            device=self._device,
        )
        return self._plan.updates

    def loss(self, update: OptimizerUpdate, micro_batch: MicroBatch, models: Models, *, counted: bool = True) -> Tensor:
        """Compute the part of ``micro_batch`` in the loss of ``update``: a scalar. The parts sum to the loss.

        Args:
            counted: the micro-batch enters the step's metrics.
        """
        algorithm, plan = self._algorithm, self._planned()
        with torch.set_grad_enabled(self.trains_policy):
            found = self._settings.logprobs(models.policy(micro_batch), micro_batch)
        # Before the reference runs: with adapters it is the same model, and the value head takes its newest states.
        values = self._value_head.values(micro_batch) if self._value_head is not None else None
        tokens = self._tokens(micro_batch, found, plan, models)
        token = self._token_loss(micro_batch, tokens)
        loss, extra, estimates = token.loss, {}, None
        for name, weights in self._weights(micro_batch, tokens, found, plan):
            loss = loss * weights
            extra[name] = weights if name == "correction_mean" else 1 - weights
        if algorithm.kl is not None:
            estimates = algorithm.kl(found.plain, self._reference(micro_batch, models))
            if not algorithm.kl_in_reward:
                loss = loss + algorithm.kl_coef * self._kl_term(estimates, micro_batch, found)
        if algorithm.entropy_coef:
            loss = loss - algorithm.entropy_coef * entropies(found.distribution)
        if algorithm.teacher is not None:
            gap = self._teacher_gap(micro_batch, found)
            extra["teacher_gap"] = gap.detach()
            if algorithm.teacher_loss is not None:
                loss = loss + algorithm.teacher_coef * algorithm.teacher_loss(gap, torch.zeros_like(gap))
        if algorithm.value_head is not None:
            loss = loss if self.trains_policy else torch.zeros_like(loss)
            value_losses = self._value_losses(values, micro_batch, algorithm.value_head.clip, plan)
            loss = loss + algorithm.value_head.coef * value_losses
            extra["value_loss"] = value_losses.detach()
        if found.outside_nucleus is not None:
            extra["outside_nucleus"] = found.outside_nucleus.float()
        total = (loss * update.weights[micro_batch.token_indices]).sum()
        if not counted:
            return total
        self._totals.add(
            micro_batch,
            token,
            found.nucleus.detach(),
            found.distribution.detach(),
            float(total.detach()) / len(plan.updates),
            estimates,
            first=update.first,
            extra=extra,
        )
        return total

    @property
    def totals(self) -> TokenTotals:
        """Sums over the micro-batches so far. They must be summed over ranks before :meth:`metrics`."""
        return self._totals

    def metrics(self) -> dict[str, float]:
        """Return this part of the step's metrics (:mod:`rft.training.metrics`). Call it after all losses."""
        batch, plan = self._batch, self._planned()
        rewards = batch.rewards[batch.first_rows]
        metrics = self._totals.metrics() | {
            "reward_mean": float(rewards.mean()),
            "reward_std": float(rewards.std()),
            "advantage_abs_mean": plan.advantage_abs_mean,
            "tokens": float(sum(len(payload.tokens) for payload in batch.payloads)),
            "groups": float(len(np.unique(batch.groups))),
            "experiences": float(len(batch)),
            "updates": float(len(plan.updates)),
        }
        if self._demonstrated is not None and self._algorithm.demonstration_loss is not None:
            metrics["demonstration_share"] = plan.demonstration_share
        if self._baseline_scores is not None:
            metrics["kl_baseline"] = self._baseline
        if not self.trains_policy:
            metrics["value_warmup"] = 1.0
        if batch.newest_version >= 0:
            metrics["sampler_version"] = float(batch.newest_version)
        if self._shift is not None:
            metrics["policy_shift"] = self._shift.mean()
        if self._value_head is not None:
            metrics["value_crc32"] = float(checksum(self._value_head.parameters()))
        return metrics

    def _planned(self) -> StepPlan:
        if self._plan is None:
            raise RuntimeError("updates() must be called first")
        return self._plan

    def _old(self, micro_batch: MicroBatch, found: TokenLogprobs) -> Tensor:
        """Return the log-probabilities [N] that ratios are taken against."""
        return self._begun(micro_batch, found) if self._algorithm.old_from_trainer else micro_batch.sampler_logprobs

    def _begun(self, micro_batch: MicroBatch, found: TokenLogprobs) -> Tensor:
        """Return the log-probabilities [N] under the policy as the step began."""
        table = self._own_scores.tables.get("policy")
        return found.nucleus.detach() if table is None else table[micro_batch.token_indices]

    def _reference(self, micro_batch: MicroBatch, models: Models) -> Tensor:
        """Return the reference's log-probabilities [N], from its table or from the model."""
        table = self._own_scores.tables.get("reference")
        if table is not None:
            return table[micro_batch.token_indices]
        if models.reference is None:
            raise RuntimeError("the objective needs a reference model")
        with torch.no_grad():
            return self._settings.logprobs(models.reference(micro_batch), micro_batch).plain

    def _kl_term(self, estimates: Tensor, micro_batch: MicroBatch, found: TokenLogprobs) -> Tensor:
        """Return what is added to the token losses [N], before ``kl_coef``.

        Experts' tokens are no samples of a policy, so their estimates have no ratio.
        """
        if not self._algorithm.kl_unbiased:
            return estimates
        terms = unbiased(estimates, found.nucleus, micro_batch.sampler_logprobs)
        sampled = self._sampled[micro_batch.batch_indices][micro_batch.sequences]
        return torch.where(sampled, terms, estimates)

    def _teacher_gap(self, micro_batch: MicroBatch, found: TokenLogprobs) -> Tensor:
        """Return the policy's log-probability minus the teacher's [N], and 0 where the policy did not sample."""
        gap = found.plain - self._own_scores.tables["teacher"][micro_batch.token_indices]
        return torch.where(self._sampled[micro_batch.batch_indices][micro_batch.sequences], gap, torch.zeros_like(gap))

    def _tokens(self, micro_batch: MicroBatch, found: TokenLogprobs, plan: StepPlan, models: Models) -> TokenBatch:
        needs = self._algorithm.needs
        return TokenBatch(
            logprobs=found.plain if needs.reference else found.nucleus,
            old=self._old(micro_batch, found),
            advantages=plan.advantages[micro_batch.token_indices],
            sequences=micro_batch.sequences,
            rewards=self._rewards[micro_batch.batch_indices],
            groups=self._groups[micro_batch.batch_indices],
            reference=self._reference(micro_batch, models) if needs.reference else None,
            entropy=entropies(found.distribution) if needs.entropy else None,
            covariance_rank=None if plan.covariance_rank is None else plan.covariance_rank[micro_batch.token_indices],
            demonstrated=None if self._demonstrated is None else self._demonstrated[micro_batch.batch_indices],
            baseline=self._baseline,
        )

    def _token_loss(self, micro_batch: MicroBatch, tokens: TokenBatch) -> TokenLoss:
        algorithm = self._algorithm
        token = algorithm.loss(tokens)
        if self._demonstrated is None or algorithm.demonstration_loss is None:
            return token
        imitated = self._demonstrated[micro_batch.batch_indices][micro_batch.sequences]
        imitation = algorithm.demonstration_loss(tokens)
        return TokenLoss(
            torch.where(imitated, imitation.loss, token.loss),
            torch.where(imitated, torch.ones_like(token.ratio), token.ratio),
            torch.where(imitated, imitation.clipped, token.clipped),
        )

    def _weights(
        self, micro_batch: MicroBatch, tokens: TokenBatch, found: TokenLogprobs, plan: StepPlan
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights [N] that the loss is multiplied by, each with the metric that reports it."""
        algorithm, sampler = self._algorithm, micro_batch.sampler_logprobs
        log_ratios = (self._begun(micro_batch, found) - sampler).detach()
        if algorithm.correction is not None:
            weights = algorithm.correction(at_level(tokens, log_ratios, algorithm.correction_level))
            yield "correction_mean", self._of_rollouts(weights, micro_batch)
        if algorithm.rejection is not None:
            weights = algorithm.rejection(at_level(tokens, log_ratios, algorithm.rejection_level))
            yield "rejected_share", self._of_rollouts(weights, micro_batch)
        if algorithm.off_policy_mask is not None:
            weights = off_policy_mask(tokens, found.nucleus, sampler, delta=algorithm.off_policy_mask)
            yield "off_policy_share", self._of_rollouts(weights, micro_batch)
        if plan.kept is not None:
            yield "filtered_share", plan.kept[micro_batch.token_indices]

    def _of_rollouts(self, weights: Tensor, micro_batch: MicroBatch) -> Tensor:
        """Return ``weights`` [N] with 1 for demonstrations that the algorithm does not treat as rollouts."""
        if self._demonstrated is None:
            return weights
        demonstrated = self._demonstrated[micro_batch.batch_indices][micro_batch.sequences]
        return torch.where(demonstrated, torch.ones_like(weights), weights)

    def _value_losses(self, values: Tensor | None, micro_batch: MicroBatch, clip: float, plan: StepPlan) -> Tensor:
        if values is None or plan.returns is None:
            raise RuntimeError("Objective.attach() must be called first")
        old = self._own_scores.tables["values"][micro_batch.token_indices]
        returns = plan.returns[micro_batch.token_indices]
        return value_loss(values, old, returns, clip=clip)


def _tables_needed(algorithm: Algorithm, *, several_updates: bool) -> frozenset[str]:
    """Return the names of the tables of :class:`Scores` that the algorithm needs."""
    names: set[str] = set()
    if algorithm.kl is not None and algorithm.kl_in_reward:
        names |= {"plain", "reference"}
    if algorithm.needs_reference and several_updates:
        names.add("reference")
    # With one update, the policy as the step began is the policy in the loss, so no pass is needed for it.
    compares_start = algorithm.old_from_trainer or algorithm.rejection is not None
    if (compares_start and several_updates) or algorithm.needs.policy:
        names.add("policy")
    if algorithm.token_filter is not None or algorithm.needs.covariance:
        names |= {"policy", "entropy"}
    if algorithm.needs.values:
        names.add("values")
    if algorithm.teacher is not None:
        names |= {"plain", "teacher"}
    return frozenset(names)


def _baseline_scores(algorithm: Algorithm, batch: StepBatch, device: torch.device) -> Scores | None:
    """Return the scores that KTO's reference point is computed from; None without one."""
    if not algorithm.needs.baseline:
        return None
    mismatched = mismatched_batch(batch)
    return None if mismatched is None else Scores(mismatched, frozenset({"plain", "reference"}), device)
