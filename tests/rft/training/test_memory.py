"""The memory estimate follows the arithmetic of ZeRO and LoRA, and the doctor advises what to change."""

import pytest
from synthetic import make_tiny_model

from infra.doctor.memory import judge_memory
from rft.config import Config, TrainerConfig
from rft.policy.loading import empty_model
from rft.training.memory import ModelShape, affordable_tokens, estimate_memory

SHAPE = ModelShape(
    parameters=1_000_000, linear=((100, 100),) * 10, layers=4, hidden=100, intermediate=400, vocabulary=1000
)


def needed_with(**trainer):
    return estimate_memory(SHAPE, TrainerConfig(**trainer), reference=True)


@pytest.mark.parametrize(
    ("trainer", "weights", "gradients", "optimizer"),
    [
        ({}, 4, 4, 8),
        ({"engine": "deepspeed", "ranks": 2, "zero_stage": 1}, 4, 4, 6),
        ({"engine": "deepspeed", "ranks": 2, "zero_stage": 2}, 4, 2, 6),
        ({"engine": "deepspeed", "ranks": 2, "zero_stage": 3}, 2, 2, 6),
        ({"engine": "deepspeed", "ranks": 4, "zero_stage": 3, "dtype": "bfloat16"}, 0.5, 0.5, 3),
    ],
)
def test_bytes_of_a_parameter(trainer, weights, gradients, optimizer):
    needed = needed_with(**trainer)
    megabytes = (needed.weights / 1e6, needed.gradients / 1e6, needed.optimizer / 1e6, needed.reference / 1e6)
    assert megabytes == (weights, gradients, optimizer, 4)


def test_adapters_need_gradients_and_moments_of_their_own_only_and_no_reference():
    needed, adapters = needed_with(lora={"rank": 8}), 8 * 200 * 10
    assert (needed.gradients, needed.optimizer, needed.reference) == (4 * adapters, 8 * adapters, 0)
    assert needed.weights == 4 * (1_000_000 + adapters)


def test_activations_grow_with_tokens_and_shrink_with_checkpointing():
    assert needed_with(micro_batch_tokens=2000).activations == 2 * needed_with(micro_batch_tokens=1000).activations
    assert needed_with(gradient_checkpointing=True).activations < 0.7 * needed_with().activations


def test_affordable_tokens_fit_into_the_free_memory():
    config = TrainerConfig(micro_batch_tokens=5000)
    free = needed_with(micro_batch_tokens=5000).activations // 3
    tokens = affordable_tokens(SHAPE, config, free)
    assert (
        needed_with(micro_batch_tokens=tokens).activations
        <= free
        < needed_with(micro_batch_tokens=tokens + 2).activations
    )


def test_a_step_that_does_not_fit_is_reported_with_what_to_change(tmp_path):
    model = empty_model(make_tiny_model(tmp_path))
    config = Config.model_validate({"trainer": {"micro_batch_tokens": 10**6}, "rollout": {"max_tokens": 8}})
    level, what, advice = judge_memory(config, model, reference=True, free=2**28, device="cpu")
    assert (level, "activations" in what) == ("fail", True)
    tokens = int(advice.split("micro_batch_tokens = ")[1].split(";")[0])
    smaller = config.model_copy(update={"trainer": TrainerConfig(micro_batch_tokens=tokens)})
    assert judge_memory(smaller, model, reference=True, free=2**28, device="cpu")[0] == "ok"
    assert "gradient_checkpointing = true" in advice
