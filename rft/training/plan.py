"""What couples the sequences of a step: advantages, the weight of each token, and the cut into updates.

From the batch and the step's number alone, in float64 on the CPU, so it is the same on every rank and when done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rft.algorithms.compose import Algorithm
from rft.algorithms.inputs import Sequences, Trajectories
from rft.algorithms.trajectories import Estimate
from rft.training.batch import Flags, Floats, Ints, StepBatch


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One optimiser update."""

    units: list[list[int]]
    """Sequences to compute, as :func:`rft.training.batch.cut` wants them; others have no gradient."""
    weights: Tensor
    """float32 [M]: share of each of the step's tokens in the loss."""
    first: bool
    """The weights are still those that the step began with."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All of a step's updates."""

    updates: list[Update]
    advantages: Tensor
    """float32 [M]"""
    returns: Tensor | None
    """float32 [M]: what a value head is to learn."""
    advantage_abs_mean: float
    """Over sequences, or over tokens where advantages are by token."""
    demonstration_share: float


def make_plan(
    algorithm: Algorithm,
    batch: StepBatch,
    tables: Mapping[str, Floats],
    *,
    number: int,
    epochs: int,
    minibatches: int,
    device: torch.device,
) -> Plan:
    """``tables`` are those of :class:`rft.training.scores.Scores`; ``number`` is the step's."""
    imitated = np.array([kind == "demonstration" for kind in batch.kinds])
    if algorithm.demonstration_loss is None:
        imitated[:] = False
    advantages, returns, size = _advantages(algorithm, batch, tables, ~imitated)
    share = algorithm.demonstration_share(number)
    units = _units(algorithm, batch, _kept(algorithm, batch) | imitated)
    used = np.zeros(len(batch), dtype=np.bool_)
    used[[index for unit in units for index in unit]] = True
    learns = used & (_nonzero(advantages, batch) if _vanishes(algorithm) else True)

    def update(members: Flags, first: bool) -> Update:
        weights = np.zeros(len(batch))
        parts = ((~imitated, 1 - share), (imitated, share)) if algorithm.demonstration_loss else ((~imitated, 1.0),)
        for part, factor in parts:
            there = part & members & used
            if there.any():
                weights += factor * np.where(there, algorithm.weights(np.where(there, batch.counts, 0)), 0.0)
        return Update(
            units=[unit for unit in units if members[unit].all() and learns[unit].any()],
            weights=_tensor(np.repeat(weights, batch.counts), device),
            first=first,
        )

    cuts = [members for epoch in range(epochs) for members in _cut(batch.groups, minibatches, number, epoch)]
    return Plan(
        updates=[update(members, place == 0) for place, members in enumerate(cuts)],
        advantages=_tensor(advantages, device),
        returns=None if returns is None else _tensor(returns, device),
        advantage_abs_mean=size,
        demonstration_share=share,
    )


def _advantages(
    algorithm: Algorithm, batch: StepBatch, tables: Mapping[str, Floats], compared: Flags
) -> tuple[Floats, Floats | None, float]:
    """Advantages [M], returns [M] for a value head, and the advantages' mean size. 1 for what is not ``compared``."""
    whole = np.ones(int(batch.counts.sum()))
    if not compared.any():
        return whole, None, 1.0
    places = np.flatnonzero(np.repeat(compared, batch.counts))
    counts = batch.counts[compared]
    rewards = algorithm.shape(batch.rewards[compared], counts)
    groups = np.unique(batch.groups[compared], return_inverse=True)[1].astype(np.int64)
    penalties = np.zeros(len(places))
    if algorithm.kl is not None and algorithm.kl_in_reward:
        estimates = algorithm.kl(torch.from_numpy(tables["plain"]), torch.from_numpy(tables["reference"]))
        penalties = algorithm.kl_coef * estimates.numpy()[places]
    if algorithm.advantages is not None:
        owners = np.repeat(np.arange(len(counts)), counts)
        rewards = rewards - np.bincount(owners, weights=penalties, minlength=len(counts))
        estimated = np.asarray(algorithm.advantages(rewards, groups), dtype=np.float64)
        whole[places] = np.repeat(estimated, counts)
        return whole, None, float(np.abs(estimated).mean())
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
            policy=policy[places],
            values=tables["values"][places] if "values" in tables else None,
            teacher=tables["teacher"][places] if "teacher" in tables else None,
        )
    )
    returns = None
    if isinstance(result, Estimate):
        returns = np.zeros_like(whole)
        returns[places] = result.returns
        result = result.advantages
    whole[places] = result
    return whole, returns, float(np.abs(result).mean())


def _kept(algorithm: Algorithm, batch: StepBatch) -> Flags:
    kept = np.ones(len(batch), dtype=np.bool_)
    for keep in algorithm.filters:
        kept &= keep(Sequences(batch.rewards, batch.groups, batch.counts, batch.truncated))
    return kept


def _units(algorithm: Algorithm, batch: StepBatch, kept: Flags) -> list[list[int]]:
    if not algorithm.needs.pairs:
        return [[int(index)] for index in np.flatnonzero(kept)]
    pairs = []
    for group in np.unique(batch.groups):
        members = np.flatnonzero((batch.groups == group) & kept)
        if len(members) < 2:
            continue
        # The first of equals, so that the choice is the same when done again.
        best, worst = members[batch.rewards[members].argmax()], members[batch.rewards[members].argmin()]
        if batch.rewards[best] > batch.rewards[worst]:
            pairs.append([int(best), int(worst)])
    return pairs


def _vanishes(algorithm: Algorithm) -> bool:
    """Without these a sample of no advantage has no gradient: most of a step, once groups become uniform."""
    in_loss = algorithm.kl is not None and not algorithm.kl_in_reward
    return algorithm.needs.vanishes and not in_loss and not algorithm.entropy_coef


def _nonzero(advantages: Floats, batch: StepBatch) -> Flags:
    owners = np.repeat(np.arange(len(batch)), batch.counts)
    found: Flags = np.bincount(owners, weights=advantages != 0, minlength=len(batch)) > 0
    return found


def _cut(groups: Ints, minibatches: int, number: int, epoch: int) -> list[Flags]:
    """Members of each minibatch [B], whole groups each."""
    if minibatches == 1:
        return [np.ones(len(groups), dtype=np.bool_)]
    order = np.random.default_rng([number, epoch]).permutation(int(groups.max()) + 1)
    return [np.isin(groups, part) for part in np.array_split(order, minibatches) if len(part)]


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(values).float().to(device)
