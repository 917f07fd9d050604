"""Learning-rate schedules equal those of transformers, and the rate of a step does not depend on what ran before."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from rft.config import Config, TrainerConfig
from rft.training.environment import training_environment
from rft.training.learning_rate import learning_rate_of

RATE, LAST = 4e-4, 1e-5


def trainer(**fields: Any) -> TrainerConfig:
    return TrainerConfig(learning_rate=RATE, **fields)


def rates_of_transformers(name: str, warmup: int, steps: int, options: dict[str, Any]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = transformers.get_scheduler(name, optimizer, warmup, steps, options)
    rates = []
    for _ in range(steps + 1):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    ("schedule", "final", "name", "options"),
    [
        ("constant", 0.0, "constant_with_warmup", {}),
        ("linear", 0.0, "linear", {}),
        ("cosine", 0.0, "cosine", {}),
        ("cosine", LAST, "cosine_with_min_lr", {"min_lr": LAST}),
    ],
)
def test_after_warmup_the_rates_are_those_of_transformers(
    schedule: str, final: float, name: str, options: dict[str, Any], warmup: int
) -> None:
    """Transformers counts steps from 0, so its warm-up begins with a step at rate 0. Ours does not."""
    config = trainer(learning_rate_schedule=schedule, final_learning_rate=final, warmup_steps=warmup, steps=40)
    ours = [learning_rate_of(number, config) for number in range(1, 42)]
    theirs = rates_of_transformers(name, warmup, 40, options)
    assert ours[warmup:] == pytest.approx(theirs[warmup:], rel=1e-12, abs=1e-18)
    assert ours[:warmup] == pytest.approx([RATE * number / warmup for number in range(1, warmup + 1)])


def test_a_line_falls_in_equal_parts_to_the_final_rate_and_stays_there() -> None:
    config = trainer(
        learning_rate_schedule="linear", final_learning_rate=LAST, steps=500, warmup_steps=2, decay_steps=6
    )
    rates = [learning_rate_of(number, config) for number in range(1, 10)]
    falling = [RATE - (RATE - LAST) * part / 4 for part in range(5)]
    assert rates == pytest.approx([RATE / 2, RATE, *falling, LAST, LAST])


def test_half_a_cosine_is_halfway_in_the_middle() -> None:
    config = trainer(learning_rate_schedule="cosine", steps=8)
    assert learning_rate_of(5, config) == pytest.approx(RATE / 2)
    assert learning_rate_of(3, config) == pytest.approx(RATE * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"final_learning_rate": 1.0}, r"final_learning_rate = 1 is above learning_rate = 0\.0004"),
        ({"warmup_steps": 100}, r"warmup_steps = 100 leaves no steps .* below steps = 100"),
        ({"warmup_steps": 9, "decay_steps": 9}, r"below decay_steps = 9"),
    ],
)
def test_a_schedule_that_cannot_fall_is_refused(fields: dict[str, Any], message: str) -> None:
    for schedule in ("linear", "cosine"):
        with pytest.raises(ValidationError, match=message):
            trainer(learning_rate_schedule=schedule, **fields)
    trainer(**fields)


def test_only_a_falling_rate_depends_on_the_number_of_steps() -> None:
    """A checkpoint names what decides the bits of its steps, to explain a mismatch after the number was raised."""

    def differs(**fields: Any) -> bool:
        short, long = (Config(trainer={"steps": steps, **fields}) for steps in (10, 20))
        return training_environment(short) != training_environment(long)

    assert differs(learning_rate_schedule="cosine")
    assert not differs()
    assert not differs(learning_rate_schedule="cosine", decay_steps=15)
