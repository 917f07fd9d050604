"""The objective handles several updates a step, pairs, and sampling by top-p."""

import math

import numpy as np
import papers
import pytest
import torch
from random_steps import objective_of, random_case, written_out

from rft.policy.transformers.sampling import sample_tokens
from rft.training.micro_batches import make_micro_batches
from rft.training.scores import Models
from rft.training.token_logprobs import token_logprobs


def begin(case, **settings):
    objective = objective_of(case, **settings)
    step_loss = objective.begin(3, case.batch, version=0, device=torch.device("cpu"))
    models = Models(case.policy, lambda p: case.reference[p.token_indices], lambda p: case.teacher[p.token_indices])
    for scores in step_loss.scores:
        for micro_batch in make_micro_batches(scores.batch, 40):
            scores.add(micro_batch, models, objective.value_head)
    return step_loss, models


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (1, 3), (2, 2), (3, 1), (1, 50)])
def test_each_epoch_trains_each_group_whole_once(epochs, minibatches):
    case = random_case(5)
    step_loss, _ = begin(case, name="ppo", epochs=epochs, minibatches=minibatches)
    updates, groups = step_loss.updates(), case.batch.groups
    each = min(minibatches, int(groups.max()) + 1)
    assert len(updates) == epochs * each
    for epoch in range(epochs):
        parts = [sorted(i for unit in u.units for i in unit) for u in updates[epoch * each : (epoch + 1) * each]]
        assert sorted(i for part in parts for i in part) == list(range(len(groups)))
        assert sum(len(set(groups[part])) for part in parts) == int(groups.max()) + 1
    assert [u.first for u in updates] == [True] + [False] * (len(updates) - 1)


def test_the_split_into_updates_depends_on_the_step_number_alone():
    case = random_case(5)
    units = [[u.units for u in begin(case, name="ppo", minibatches=3)[0].updates()] for _ in range(2)]
    assert units[0] == units[1]


def test_later_updates_keep_the_policy_that_the_step_began_with():
    """In decoupled PPO's second update the ratio is to the policy before the first, the weight to the sampler."""
    case = random_case(2)
    step_loss, models = begin(case, name="decoupled_ppo", epochs=2)
    _, second = step_loss.updates()
    before, _ = written_out(case)
    with torch.no_grad():
        case.policy.hidden.add_(0.5 * torch.from_numpy(np.random.default_rng(0).normal(size=case.policy.hidden.shape)))
    now, leaves = written_out(case)
    for old, new in zip(papers.all_sequences(before), papers.all_sequences(now), strict=True):
        new.start = old.start
    loss = papers.decoupled_ppo(now, lambda seq, t: math.exp(seq.start[t] - seq.mu[t]))
    loss.backward()
    total = sum(
        step_loss.loss(second, micro_batch, models) for micro_batch in make_micro_batches(case.batch, 40, second.units)
    )
    total.backward()
    assert float(total.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    wanted = leaves["hidden"].grad
    assert (case.policy.hidden.grad - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert step_loss.metrics()["ratio_mean"] != pytest.approx(1.0)


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_rejection_judges_the_policy_that_the_step_began_with_in_every_update(level):
    """Metrics count tokens of both updates. In the second the policy has moved far, which must not matter."""
    case = random_case(2)
    step_loss, models = begin(
        case, rejection=level, rejection_low=0.8, rejection_high=1.25, epochs=2, kl="k2", kl_coef=1e-9
    )
    share = []
    for update in step_loss.updates():
        for micro_batch in make_micro_batches(case.batch, 40, update.units):
            step_loss.loss(update, micro_batch, models)
        share.append(step_loss.metrics()["rejected_share"])
        with torch.no_grad():
            case.policy.hidden.mul_(-1.0)
    assert 0 < share[0] < 1
    assert share[1] == share[0]


def test_off_policy_masking_judges_the_policy_as_it_is_now():
    case = random_case(2)
    step_loss, models = begin(case, off_policy_mask=0.1, epochs=2)
    share = []
    for update in step_loss.updates():
        for micro_batch in make_micro_batches(case.batch, 40, update.units):
            step_loss.loss(update, micro_batch, models)
        share.append(step_loss.metrics()["off_policy_share"])
        with torch.no_grad():
            case.policy.hidden.mul_(-1.0)
    assert 0 < share[0] < share[1]


def test_a_pair_is_the_best_and_the_worst_of_its_group_and_a_group_of_equals_has_none():
    case = random_case(3)
    step_loss, _ = begin(case, name="dpo")
    (update,) = step_loss.updates()
    batch = case.batch
    assert update.units
    for best, worst in update.units:
        own = batch.rewards[batch.groups == batch.groups[best]]
        assert batch.groups[best] == batch.groups[worst]
        assert (batch.rewards[best], batch.rewards[worst]) == (own.max(), own.min())
    paired = {int(batch.groups[unit[0]]) for unit in update.units}
    for group in set(range(int(batch.groups.max()) + 1)) - paired:
        assert len(set(batch.rewards[batch.groups == group])) == 1


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_trainer_computes_the_samplers_log_probabilities_under_top_p(temperature):
    numbers = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 11, generator=numbers)
    top_ps = torch.rand(300, generator=numbers) * 0.9 + 0.1
    top_ps[::3] = 1.0
    temperatures = torch.full((300,), temperature)
    tokens, logprobs = sample_tokens(logits, torch.rand(300, generator=numbers), temperatures, top_ps)
    found = token_logprobs(logits, tokens, temperatures, top_ps)
    assert torch.allclose(found.nucleus, logprobs, atol=1e-5)
    assert not found.outside_nucleus.any()
    assert (found.nucleus >= found.plain - 1e-6).all()
    assert (found.nucleus - found.plain).max() > 0.1


def test_a_token_outside_the_trainers_own_nucleus_is_counted_and_stays_finite():
    logits = torch.tensor([[4.0, 0.0, -1.0]], requires_grad=True)
    found = token_logprobs(logits, torch.tensor([2]), torch.ones(1), torch.tensor([0.5]))
    assert found.outside_nucleus.tolist() == [True]
    # The nucleus is the likeliest token and the token itself.
    assert float(found.nucleus.detach()) == pytest.approx(-1 - math.log(math.exp(4) + math.exp(-1)), rel=1e-6)
    found.nucleus.sum().backward()
    assert torch.isfinite(logits.grad).all()
