"""Rewards by name are normalized one by one, with the weights that the processors gave them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import variant_papers
from random_steps import Case, assert_equal, random_case, run
from synthetic import VOCABULARY, scored

from infra.preflight.algorithm import algorithms
from infra.preflight.facts import Facts
from rft.algorithms.advantages import group_normalized, reward_normalized
from rft.algorithms.compose import compose
from rft.algorithms.inputs import Floats, Ints, RewardTerms, needs
from rft.config import AlgorithmConfig, Config, ProcessorConfig
from rft.errors import ConfigError
from rft.training.batch import StepBatch
from rft.training.engines.channel import decode, decode_batch, encode, encode_batch
from rft.training.reward_weights import reward_weights
from rft.training.sample import SampleFilter, read_sample

WEIGHTS = {"format": 0.5, "judge": 2.0, "right": 1.0}


def with_terms(case: Case, seed: int, *, rest: float = 0.0) -> Case:
    """Give each sample rewards by name, some missing, and a reward that is their weighted sum plus some ``rest``."""
    numbers = np.random.default_rng(seed)
    batch = case.batch
    values = numbers.choice([0.0, 0.3, 1.0], (len(batch), 3)) * [1.0, 1.0, 100.0]
    values[numbers.random(values.shape) < 0.2] = np.nan
    weights = np.array(list(WEIGHTS.values()))
    rewards = np.nansum(values * weights, axis=1) + rest * numbers.choice([0.0, -1.0], len(batch))
    terms = {"reward_names": tuple(WEIGHTS), "reward_values": values, "reward_weights": weights}
    return replace(case, batch=replace(batch, rewards=rewards, **terms))


@needs(reward_terms=True)
def first_term(rewards: Floats, groups: Ints, terms: RewardTerms) -> Floats:
    assert terms.names[0] in ("format", "one")
    return np.nan_to_num(terms.values[:, 0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("options", "rest"), [({}, 0.0), ({}, 0.5), ({"whiten": False}, 0.5)])
def test_each_named_reward_is_normalized_by_itself(seed: int, options: dict[str, Any], rest: float) -> None:
    case = with_terms(random_case(seed), seed, rest=rest)
    result = run(case, name="gdpo", advantage_options=options)
    assert_equal(case, result, lambda step: variant_papers.gdpo(step, WEIGHTS, **options))


def test_equal_sums_of_different_rewards_have_different_advantages() -> None:
    """The example that GDPO begins with: GRPO cannot tell (0, 2) from (1, 1)."""
    values = np.array([[0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    rewards, groups = values.sum(axis=1), np.zeros(4, dtype=np.int64)
    terms = RewardTerms(("a", "b"), values, np.ones(2))
    together = group_normalized(rewards, groups)
    one_by_one = reward_normalized(rewards, groups, terms)
    assert together[0] == together[1]
    assert one_by_one[0] != pytest.approx(one_by_one[1], abs=0.1)


def test_without_names_it_is_grpo() -> None:
    numbers = np.random.default_rng(0)
    rewards, groups = numbers.normal(size=12), np.repeat(np.arange(3), 4)
    terms = RewardTerms((), np.zeros((12, 0)), np.zeros(0))
    assert (reward_normalized(rewards, groups, terms, whiten=False) == group_normalized(rewards, groups)).all()


def test_an_estimator_of_ones_own_may_ask_for_the_terms() -> None:
    case = with_terms(random_case(1), 1)
    plain = run(case, advantage="test_reward_terms:first_term")
    other = replace(case, batch=replace(case.batch, reward_values=2 * case.batch.reward_values))
    assert run(other, advantage="test_reward_terms:first_term").loss != plain.loss
    del first_term.needs  # type: ignore[attr-defined]
    try:
        with pytest.raises(ConfigError, match=r"needs\(reward_terms=True\)"):
            compose(AlgorithmConfig(advantage="test_reward_terms:first_term"))
    finally:
        needs(reward_terms=True)(first_term)


def test_terms_reach_the_batch_and_its_other_ranks() -> None:
    wanted = SampleFilter(VOCABULARY, "policy")
    given = [{"right": 1.0, "format": 0.25}, {"right": 0.0}, {}]
    samples = [read_sample(0, i, scored(0, i, 3, rewards=rewards), wanted) for i, rewards in enumerate(given)]
    batch = StepBatch.from_samples(samples, {"right": 1.0, "format": 0.5}.__getitem__)
    for one in (batch, decode_batch(*decode(encode(*encode_batch(batch))))):
        assert one.reward_names == ("format", "right")
        assert one.reward_weights.tolist() == [0.5, 1.0]
        np.testing.assert_equal(one.reward_values, [[0.25, 1.0], [np.nan, 0.0], [np.nan, np.nan]])
    nameless = StepBatch.from_samples(samples[2:])
    assert decode_batch(*decode(encode(*encode_batch(nameless)))).reward_values.shape == (1, 0)


def test_weights_are_those_of_the_processors() -> None:
    terms = [
        {"function": "exact_match", "weight": 3.0},
        {"function": "format", "weight": 0.5, "options": {"pattern": "x"}},
        {"function": "exact_match", "weight": 0.25},
    ]
    plain = reward_weights(ProcessorConfig(rewards=terms))
    names = ("exact_match", "exact_match#2", "format", "format.brackets", "given", "mine")
    assert [plain(name) for name in names] == [3.0, 0.25, 0.5, 0.5, 1.0, 1.0]
    external = {"required": ["judge"], "optional": ["human"], "weights": {"judge": 2.0, "functions": 0.1}}
    weighed = reward_weights(ProcessorConfig(rewards=terms, external=external))
    assert [weighed(name) for name in (*names, "judge", "human")] == pytest.approx(
        [0.3, 0.025, 0.05, 0.05, 0.1, 0.1, 2.0, 1.0]
    )


def test_rewards_that_are_multiplied_are_refused() -> None:
    external = {"required": ["judge"], "combine": "product"}
    config = Config(policy={"model": "m"}, algorithm={"name": "gdpo"}, processor={"external": external})
    with pytest.raises(ConfigError, match="Set combine = 'weighted_sum'"):
        list(algorithms(Facts(config)))
    (found,) = algorithms(Facts(Config(policy={"model": "m"}, processor={"external": external})))
    assert found.level == "ok"
