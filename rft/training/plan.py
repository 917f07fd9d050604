"""Plans a step: computes what couples its sequences (advantages, token weights) and splits it into updates.

The plan follows from the batch, the scores and the step's number alone. It is computed in float64 on the CPU, so it is
the same on every rank and when the step is redone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.algorithm import Algorithm
from rft.algorithms.inputs import Flags, Floats, Ints, RewardTerms, Sequences, Trajectories
from rft.algorithms.token_filters import StepTokens, covariances, descending_ranks
from rft.algorithms.trajectories import AdvantageEstimate
from rft.training.batch import StepBatch
from rft.training.turns import turns_of


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerUpdate:
    """One optimizer update of a step."""

    units: list[list[int]]
    """Sequences to compute, as :func:`rft.training.micro_batches.split_by_tokens` expects them. The others have no
    gradient."""
    weights: Tensor
    """float32 [M]: weight of each of the step's tokens in the loss."""
    first: bool
    """The model's weights are still those that the step began with."""


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """The updates of a step and what they have in common."""

    updates: list[OptimizerUpdate]
    advantages: Tensor
    """float32 [M]"""
    returns: Tensor | None
    """float32 [M]: targets of the value head; None without one."""
    kept: Tensor | None
    """float32 [M]: 0 at tokens that the token filter leaves out of the policy's loss, else 1; None without a filter."""
    covariance_rank: Tensor | None
    """float32 [M]: see :class:`rft.algorithms.inputs.TokenBatch`; None if the loss does not need it."""
    advantage_abs_mean: float
    """Mean over sequences, or over tokens if advantages are by token."""
    demonstration_share: float
    """μ: the demonstrations' share of the loss."""


def plan_step(
    algorithm: Algorithm,
    batch: StepBatch,
    tables: Mapping[str, Floats],
    *,
    number: int,
    epochs: int,
    minibatches: int,
    device: torch.device,
) -> StepPlan:
    """Plan step ``number`` (from 1) on ``batch``. ``tables`` are those of :class:`rft.training.scores.Scores`."""
    demonstrated = np.array([kind == "demonstration" for kind in batch.kinds])
    imitated = demonstrated & (algorithm.demonstration_loss is not None)
    advantages, returns, abs_mean = _advantages(algorithm, batch, tables, ~imitated)
    if algorithm.teacher_advantages is not None:
        written = np.repeat([kind == "rollout" for kind in batch.kinds], batch.counts)
        signal = algorithm.teacher_advantages(tables["plain"][written], tables["teacher"][written])
        advantages[written] += algorithm.teacher_coef * signal
    share = algorithm.demonstration_share(number)
    units = _units(algorithm, batch, _selected(algorithm, batch) | imitated)
    used = np.zeros(len(batch), dtype=np.bool_)
    used[[index for unit in units for index in unit]] = True
    sampled = np.repeat(used & ~(demonstrated & algorithm.treats_demonstrations), batch.counts)
    learns = used & (_with_advantage(advantages, batch) if _skips_zero_advantages(algorithm) else True)

    def update(minibatch: Flags, first: bool) -> OptimizerUpdate:
        weights = np.zeros(len(batch))
        parts = ((~imitated, 1 - share), (imitated, share)) if algorithm.demonstration_loss else ((~imitated, 1.0),)
        for part, factor in parts:
            chosen = part & minibatch & used
            if chosen.any():
                weights += factor * np.where(chosen, _token_weights(algorithm, batch, chosen), 0.0)
        return OptimizerUpdate(
            units=[unit for unit in units if minibatch[unit].all() and learns[unit].any()],
            weights=_tensor(np.repeat(weights, batch.counts), device),
            first=first,
        )

    splits = [part for epoch in range(epochs) for part in _minibatches(batch.groups, minibatches, number, epoch)]
    return StepPlan(
        updates=[update(minibatch, index == 0) for index, minibatch in enumerate(splits)],
        advantages=_tensor(advantages, device),
        returns=None if returns is None else _tensor(returns, device),
        kept=_kept(algorithm, sampled, tables, advantages, number, device),
        covariance_rank=_covariance_rank(algorithm, sampled, tables, advantages, device),
        advantage_abs_mean=abs_mean,
        demonstration_share=share,
    )


def _advantages(
    algorithm: Algorithm, batch: StepBatch, tables: Mapping[str, Floats], compared: Flags
) -> tuple[Floats, Floats | None, float]:
    """Compute advantages [M], returns [M] for a value head, and the mean absolute advantage.

    Only the sequences in ``compared`` [B] are compared with each other, those of one sample as one. The tokens of the
    others get the advantage 1.
    """
    whole = np.ones(int(batch.counts.sum()))
    if not compared.any():
        return whole, None, 1.0
    indices = np.flatnonzero(np.repeat(compared, batch.counts))
    samples = compared[batch.first_rows]
    counts = np.add.reduceat(batch.counts, batch.first_rows)[samples]
    first_rows = batch.first_rows[samples]
    rewards = algorithm.shape_rewards(batch.rewards[first_rows], counts)
    groups = np.unique(batch.groups[first_rows], return_inverse=True)[1].astype(np.int64)
    penalties = np.zeros(len(indices))
    if algorithm.kl is not None and algorithm.kl_in_reward:
        estimates = algorithm.kl(torch.from_numpy(tables["plain"]), torch.from_numpy(tables["reference"]))
        penalties = algorithm.kl_coef * estimates.numpy()[indices]
    if algorithm.advantages is not None:
        owners = np.repeat(np.arange(len(counts)), counts)
        rewards = rewards - np.bincount(owners, weights=penalties, minlength=len(counts))
        terms = (_reward_terms(batch, first_rows),) if algorithm.needs.reward_terms else ()
        by_sample = np.asarray(algorithm.advantages(rewards, groups, *terms), dtype=np.float64)
        whole[indices] = np.repeat(by_sample, counts)
        return whole, None, float(np.abs(by_sample).mean())
    assert algorithm.token_advantages is not None
    policy = tables.get("plain" if algorithm.needs.teacher else "policy")
    if policy is None:
        policy = np.concatenate([p.logprobs[1:][p.action_mask[1:] != 0] for p in batch.payloads]).astype(np.float64)
    result = algorithm.token_advantages(
        Trajectories(
            rewards=rewards,
            groups=groups,
            starts=np.cumsum(counts) - counts,
            counts=counts,
            penalties=penalties,
            policy=policy[indices],
            values=tables["values"][indices] if "values" in tables else None,
            teacher=tables["teacher"][indices] if "teacher" in tables else None,
            turns=turns_of(batch, compared),
        )
    )
    returns = None
    if isinstance(result, AdvantageEstimate):
        returns = np.zeros_like(whole)
        returns[indices] = result.returns
        result = result.advantages
    whole[indices] = result
    return whole, returns, float(np.abs(result).mean())


def _reward_terms(batch: StepBatch, rows: Ints) -> RewardTerms:
    return RewardTerms(batch.reward_names, batch.reward_values[rows], batch.reward_weights)


def _selected(algorithm: Algorithm, batch: StepBatch) -> Flags:
    """Return the sequences [B] that every filter keeps. It keeps all rows of a sample, or none."""
    first_rows = batch.first_rows
    samples = Sequences(
        rewards=batch.rewards[first_rows],
        groups=batch.groups[first_rows],
        counts=np.add.reduceat(batch.counts, first_rows),
        truncated=np.logical_or.reduceat(batch.truncated, first_rows),
    )
    selected = np.ones(len(first_rows), dtype=np.bool_)
    for select in algorithm.filters:
        selected &= select(samples)
    kept: Flags = selected[batch.samples]
    return kept


def _token_weights(algorithm: Algorithm, batch: StepBatch, chosen: Flags) -> Floats:
    """Return the weight of each token of the ``chosen`` sequences [B]: that of its sample, see ``row_weight``."""
    counts = np.where(chosen, batch.counts, 0)
    rows = batch.row_counts
    if rows.max() == 1:
        return algorithm.token_weights(counts)
    totals = np.add.reduceat(counts, batch.first_rows)
    weights = (
        algorithm.token_weights(totals / rows) / rows if algorithm.rows_as_one else algorithm.token_weights(totals)
    )
    spread: Floats = weights[batch.samples]
    return spread


def _units(algorithm: Algorithm, batch: StepBatch, selected: Flags) -> list[list[int]]:
    """Return the sequences that are computed together: each alone, or as [best, worst] of its group.

    A pair compares the probabilities of two whole answers, so samples of several rows are in none.
    """
    if not algorithm.needs.pairs:
        return [[int(index)] for index in np.flatnonzero(selected)]
    pairs = []
    single = batch.row_counts[batch.samples] == 1
    for group in np.unique(batch.groups):
        indices = np.flatnonzero((batch.groups == group) & selected & single)
        if len(indices) < 2:
            continue
        # Of equal rewards the first is taken, so that a redone step has the same pairs.
        best, worst = indices[batch.rewards[indices].argmax()], indices[batch.rewards[indices].argmin()]
        if batch.rewards[best] > batch.rewards[worst]:
            pairs.append([int(best), int(worst)])
    return pairs


def _kept(
    algorithm: Algorithm,
    sampled: Flags,
    tables: Mapping[str, Floats],
    advantages: Floats,
    number: int,
    device: torch.device,
) -> Tensor | None:
    """Return :attr:`StepPlan.kept`. Only tokens [M] in ``sampled`` are filtered."""
    if algorithm.token_filter is None:
        return None
    kept = np.ones(len(sampled))
    if sampled.any():
        tokens = StepTokens(advantages[sampled], tables["policy"][sampled], tables["entropy"][sampled], number)
        kept[sampled] = algorithm.token_filter(tokens)
    return _tensor(kept, device)


def _covariance_rank(
    algorithm: Algorithm, sampled: Flags, tables: Mapping[str, Floats], advantages: Floats, device: torch.device
) -> Tensor | None:
    """Return :attr:`StepPlan.covariance_rank`: among the tokens [M] in ``sampled``, 1 for the others."""
    if not algorithm.needs.covariance:
        return None
    ranks = np.ones(len(sampled))
    if sampled.any():
        ranks[sampled] = descending_ranks(covariances(advantages[sampled], tables["policy"][sampled]))
    return _tensor(ranks, device)


def _skips_zero_advantages(algorithm: Algorithm) -> bool:
    """Return whether sequences without any advantage have no gradient, so that they need not be computed.

    Once groups become uniform, they are most of a step.
    """
    kl_in_loss = algorithm.kl is not None and not algorithm.kl_in_reward
    further = kl_in_loss or algorithm.entropy_coef or algorithm.teacher_loss is not None
    return algorithm.needs.vanishes and not further


def _with_advantage(advantages: Floats, batch: StepBatch) -> Flags:
    owners = np.repeat(np.arange(len(batch)), batch.counts)
    found: Flags = np.bincount(owners, weights=advantages != 0, minlength=len(batch)) > 0
    return found


def _minibatches(groups: Ints, minibatches: int, number: int, epoch: int) -> list[Flags]:
    """Split a step into minibatches of whole groups; each is the flags [B] of its sequences."""
    if minibatches == 1:
        return [np.ones(len(groups), dtype=np.bool_)]
    order = np.random.default_rng([number, epoch]).permutation(int(groups.max()) + 1)
    return [np.isin(groups, part) for part in np.array_split(order, minibatches) if len(part)]


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(values).float().to(device)
