"""Only an algorithm that bounds the weight of a stale token may keep stale groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rft.algorithms.compose import compose
from rft.algorithms.inputs import TokenBatch
from rft.algorithms.presets import PRESETS
from rft.algorithms.stale_groups import algorithm_of, weight_bound
from rft.config import AlgorithmConfig, Config
from rft.errors import ConfigError
from rft.training.environment import training_environment

BOUNDED = [
    AlgorithmConfig(dual_clip=2.0),
    AlgorithmConfig(name="dapo", dual_clip=1.1),
    AlgorithmConfig(name="cispo"),
    AlgorithmConfig(name="cispo", clip_high=4.0),
    AlgorithmConfig(name="sapo"),
    AlgorithmConfig(name="sapo", loss_options={"tau_positive": 0.5, "tau_negative": 3.0}),
    AlgorithmConfig(name="topr"),
    AlgorithmConfig(name="rec"),
    AlgorithmConfig(correction="tis"),
    AlgorithmConfig(rejection="token", rejection_high=4.0),
    AlgorithmConfig(name="decoupled_ppo", rejection="token"),
    AlgorithmConfig(name="rec", rejection="token", loss_options={"importance": True}),
    AlgorithmConfig(name="opmd", correction="mis", correction_high=3.0),
    AlgorithmConfig(name="decoupled_ppo", correction="tis", correction_high=1.5),
]
UNBOUNDED = [
    AlgorithmConfig(),
    AlgorithmConfig(name="gspo"),
    AlgorithmConfig(name="decoupled_ppo"),
    AlgorithmConfig(name="rec", loss_options={"importance": True}),
    AlgorithmConfig(name="decoupled_ppo", correction_level="sequence", rejection="geometric", rejection_high=1e9),
]
UNKNOWN = [AlgorithmConfig(name="asymre"), AlgorithmConfig(name="opmd"), AlgorithmConfig(old="trainer", dual_clip=2.0)]


def weight(config: AlgorithmConfig, log_ratio: float, advantage: float) -> float:
    """Return the size of the gradient over that of REINFORCE, for a sequence of one token as the step begins."""
    algorithm = compose(config)
    sampler = torch.tensor([-1.0], dtype=torch.float64)
    now = (sampler + log_ratio).requires_grad_()
    old = now.detach() if algorithm.old_from_trainer else sampler
    tokens = TokenBatch(
        now, old, torch.tensor([advantage]).double(), torch.tensor([0]), torch.ones(1).double(), torch.tensor([0])
    )
    loss = algorithm.loss(tokens).loss
    if algorithm.correction is not None:
        loss = loss * algorithm.correction(old - sampler)
    if algorithm.rejection is not None:
        loss = loss * algorithm.rejection(old.detach() - sampler if algorithm.old_from_trainer else now.detach() - old)
    loss.sum().backward()
    assert now.grad is not None
    return abs(float(now.grad)) / abs(advantage)


@pytest.mark.parametrize("config", BOUNDED, ids=lambda config: config.model_dump_json(exclude_unset=True))
@settings(max_examples=60, deadline=None)
@given(log_ratio=st.floats(-25, 25), advantage=st.sampled_from([-2.0, -0.1, 0.1, 2.0]))
def test_the_weight_of_a_token_is_within_the_bound_whatever_its_ratio(config, log_ratio, advantage) -> None:
    bound = weight_bound(config)
    assert bound is not None
    assert weight(config, log_ratio, advantage) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("config", UNBOUNDED, ids=lambda config: config.model_dump_json(exclude_unset=True))
def test_an_algorithm_without_a_bound_has_weights_beyond_any(config) -> None:
    assert weight_bound(config) is None
    assert max(weight(config, log_ratio, advantage) for log_ratio in (9.0, 19.0) for advantage in (-1.0, 1.0)) > 1000


@pytest.mark.parametrize("config", [*UNBOUNDED[1:], *UNKNOWN], ids=lambda config: config.name)
def test_keeping_stale_groups_without_a_bound_is_one_clear_error(config) -> None:
    wrong = Config(algorithm=config, buffer={"too_stale": "keep"})
    with pytest.raises(ConfigError, match=r"buffer\.too_stale = 'keep' needs a bounded weight"):
        algorithm_of(wrong)
    for choice in ("drop", "hold"):
        assert algorithm_of(Config(algorithm=config, buffer={"too_stale": choice})) == config


def test_the_clipped_loss_gets_a_dual_clip_and_a_set_one_stays() -> None:
    kept = Config(buffer={"too_stale": "keep"})
    assert algorithm_of(kept).dual_clip == 2.0
    assert training_environment(kept)["algorithm"]["dual_clip"] == 2.0
    assert algorithm_of(Config(algorithm={"dual_clip": 5.0}, buffer={"too_stale": "keep"})).dual_clip == 5.0
    assert algorithm_of(Config()).dual_clip is None


def test_each_shipped_algorithm_is_kept_or_refused() -> None:
    refused = set()
    for name in PRESETS:
        try:
            algorithm_of(Config(algorithm={"name": name, "teacher": "t"}, buffer={"too_stale": "keep"}))
        except ConfigError:
            refused.add(name)
    assert refused == {"gspo", "decoupled_ppo", "opmd", "asymre", "luffy", "sft", "dpo", "kto"}
