"""Samples of several rows, and rewards by turn, are learned from as in references written out in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import row_papers as rp
import torch
from random_steps import LIMIT, Case, assert_equal, random_case, run, written_out

from rft.algorithms.compose import compose
from rft.config import AlgorithmConfig
from rft.training.batch import StepBatch
from rft.training.engines.channel import decode, decode_batch, encode, encode_batch
from rft.training.plan import plan_step
from rft.training.turns import turns_of

SEEDS = range(4)


def rows_case(seed: int, *, turn_rewards: bool = True) -> Case:
    """Return a step in which consecutive sequences of a group are rows of one sample, and turns have rewards."""
    case = random_case(seed)
    numbers = np.random.default_rng(seed + 100)
    batch = case.batch
    new = np.r_[True, (np.diff(batch.groups) != 0) | (numbers.random(len(batch) - 1) < 0.5)]
    samples = np.cumsum(new) - 1
    payloads = []
    for payload in batch.payloads:
        turns = int((np.diff(payload.action_mask.astype(int), prepend=0) == 1).sum())
        rewards = np.where(numbers.random(turns) < 0.6, numbers.choice([-1.0, 0.5, 1.0], turns), np.nan)
        tokens = payload.tokens.copy()
        tokens[payload.action_mask == 0] %= 2  # so that states come again
        given = rewards.astype(np.float32) if turn_rewards and numbers.random() < 0.8 else np.zeros(0, np.float32)
        payloads.append(replace(payload, turn_rewards=given, tokens=tokens))
    rewards = batch.rewards[np.flatnonzero(new)][samples]
    return replace(case, batch=replace(batch, payloads=payloads, rewards=rewards, samples=samples))


def row_step(case: Case, flat: list[list]) -> rp.Step:
    """Put the sequences of ``written_out`` together as samples with turns."""
    step: rp.Step = [[] for _ in flat]
    batch = case.batch
    at = [iter(group) for group in flat]
    for _, indices in itertools.groupby(range(len(batch)), key=lambda i: batch.samples[i]):
        own = list(indices)
        group = int(batch.groups[own[0]])
        sample = rp.RowSample(float(batch.rewards[own[0]]), [next(at[group]) for _ in own], [])
        for row, index in enumerate(own):
            payload, token, seen, turn = batch.payloads[index], 0, [], None
            known = iter(payload.turn_rewards.tolist())
            for t, (name, written) in enumerate(zip(payload.tokens, payload.action_mask, strict=True)):
                if not written:
                    seen, turn = [*(seen if turn is None else []), int(name)], None
                    continue
                if turn is None:
                    reward = next(known, None)
                    turn = rp.Turn([], None if reward is None or np.isnan(reward) else reward, tuple(seen))
                    sample.turns.append(turn)
                assert t > 0
                turn.tokens.append((row, token))
                token += 1
        step[group].append(sample)
    return step


def check(case: Case, paper: Callable[[rp.Step], torch.Tensor], **algorithm: object) -> None:
    assert_equal(case, run(case, **algorithm), lambda flat: paper(row_step(case, flat)))


CASES = {
    "grpo": ({"name": "grpo"}, rp.grpo, rp.token_mean_as_one),
    "grpo by tokens": ({"name": "grpo", "row_weight": "tokens"}, rp.grpo, rp.token_mean_as_tokens),
    "grpo by sequence": ({"name": "grpo", "aggregation": "sequence_mean"}, rp.grpo, rp.sequence_mean),
    "grpo by sequence, by tokens": (
        {"name": "grpo", "aggregation": "sequence_mean", "row_weight": "tokens"},
        rp.grpo,
        rp.sequence_mean,
    ),
    "rloo": ({"name": "rloo"}, rp.rloo, rp.sequence_sum_as_one(LIMIT)),
    "turns": ({"name": "grpo", "advantage": "turn_normalized"}, rp.turn_normalized(1.0), rp.token_mean_as_one),
    "discounted turns": (
        {"name": "grpo", "advantage": "turn_normalized", "advantage_options": {"gamma": 0.7}},
        rp.turn_normalized(0.7),
        rp.token_mean_as_one,
    ),
    "gigpo": ({"name": "gigpo"}, rp.gigpo(0.95, 1.0, True), rp.sequence_mean),
    "gigpo without std": (
        {"name": "gigpo", "advantage_options": {"gamma": 0.5, "weight": 0.3, "normalize": False}},
        rp.gigpo(0.5, 0.3, False),
        rp.sequence_mean,
    ),
    "reinforce_pp": (
        {"name": "reinforce_pp", "advantage_options": {"gamma": 0.9}},
        rp.reinforce_pp(0.9),
        rp.token_mean_as_one,
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_the_reference(name, seed):
    algorithm, advantage, weight = CASES[name]
    check(rows_case(seed), lambda step: rp.loss(step, advantage, weight), **algorithm)


@pytest.mark.parametrize("seed", SEEDS)
def test_gae_runs_over_all_rows_of_a_sample_and_takes_rewards_by_turn(seed):
    case = rows_case(seed)
    flat, _ = written_out(case)
    step = row_step(case, flat)
    values = np.array([value for group in flat for seq in group for value in seq.old_values])
    config = AlgorithmConfig(name="ppo", advantage_options={"gamma": 0.9, "lam": 0.8, "whiten": False})
    plan = plan_step(
        compose(config), case.batch, {"values": values}, number=1, epochs=1, minibatches=1, device=torch.device("cpu")
    )
    expected = [a for group in step for sample in group for a in rp.gae(sample, 0.9, 0.8)]
    np.testing.assert_allclose(plan.advantages.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_rewards_by_turn_the_normalized_turns_are_grpo(seed):
    case = rows_case(seed, turn_rewards=False)
    plans = [
        plan_step(
            compose(AlgorithmConfig(name="grpo", advantage=name)),
            case.batch, {}, number=1, epochs=1, minibatches=1, device=torch.device("cpu"),
        )
        for name in ("group_normalized", "turn_normalized")
    ]  # fmt: skip
    torch.testing.assert_close(plans[0].advantages, plans[1].advantages)


@pytest.mark.parametrize("row_weight", ["sample", "tokens"])
def test_a_sample_cut_into_equal_rows_weighs_as_it_did_or_as_its_tokens(row_weight):
    """Ten rows of 4 tokens each weigh together as one row of 4 tokens, or as 40 tokens."""
    case = rows_case(0)
    payload = replace(
        case.batch.payloads[0],
        tokens=np.arange(5, dtype=np.int32),
        action_mask=np.array([0, 1, 1, 1, 1], np.uint8),
        logprobs=np.zeros(5, np.float32),
        versions=np.array([-1, 0, 0, 0, 0], np.int32),
        turn_rewards=np.zeros(0, np.float32),
    )
    size = 12
    batch = StepBatch(
        [payload] * size,
        np.array([1.0] * 10 + [0.0, 0.0]),
        np.zeros(size, np.int64),
        ("rollout",) * size,
        np.ones(size),
        np.ones(size),
        np.zeros(size, np.bool_),
        samples=np.array([0] * 10 + [1, 2]),
    )
    algorithm = compose(AlgorithmConfig(row_weight=row_weight))
    plan = plan_step(algorithm, batch, {}, number=1, epochs=1, minibatches=1, device=torch.device("cpu"))
    weights = plan.updates[0].weights.numpy()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:40].sum() == pytest.approx(1 / 3 if row_weight == "sample" else 10 / 12)
    assert sorted(set(np.round(plan.advantages.numpy(), 4))) == pytest.approx([-0.5773, 1.1547], abs=1e-3)


def test_a_pair_holds_no_sample_of_several_rows():
    case = rows_case(1)
    algorithm = compose(AlgorithmConfig(name="dpo"))
    plan = plan_step(algorithm, case.batch, {}, number=1, epochs=1, minibatches=1, device=torch.device("cpu"))
    single = {i for i in range(len(case.batch)) if case.batch.row_counts[case.batch.samples[i]] == 1}
    assert {index for update in plan.updates for unit in update.units for index in unit} <= single


def test_rows_of_a_sample_that_stand_apart_are_refused():
    batch = rows_case(0).batch
    with pytest.raises(RuntimeError, match="together"):
        replace(batch, samples=np.arange(len(batch))[::-1].copy())


def test_a_batch_with_rows_and_turn_rewards_reaches_the_other_ranks():
    batch = rows_case(2).batch
    message, tensors = decode(encode(*encode_batch(batch)))
    again = decode_batch(message, tensors)
    assert (again.samples == batch.samples).all()
    for one, other in zip(again.payloads, batch.payloads, strict=True):
        assert np.array_equal(one.turn_rewards, other.turn_rewards, equal_nan=True)
        assert np.array_equal(one.tokens, other.tokens)


def test_a_turn_at_the_first_token_passes_its_reward_on():
    """The first token of a sequence is never learned."""
    payload = replace(
        rows_case(0).batch.payloads[0],
        tokens=np.arange(5, dtype=np.int32),
        action_mask=np.array([1, 0, 1, 0, 1], np.uint8),
        turn_rewards=np.array([2.0, np.nan, 1.0], np.float32),
    )
    one = np.ones(1)
    batch = StepBatch([payload], one, np.zeros(1, np.int64), ("rollout",), one, one, one > 1)
    turns = turns_of(batch, np.ones(1, np.bool_))
    assert turns.counts.tolist() == [1, 1]
    assert turns.rewards.tolist() == [2.0, 1.0]
    assert turns.starts.tolist() == [0, 1]
