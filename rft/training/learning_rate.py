"""Computes the learning rate of a step. It follows from the step's number and the configuration alone, so a resumed run
has the rates of an undisturbed one."""

from __future__ import annotations

import math

from rft.config import TrainerConfig


def learning_rate_of(number: int, trainer: TrainerConfig) -> float:
    """Return the learning rate of step ``number`` (from 1).

    It rises linearly to ``learning_rate`` over ``warmup_steps``, and stays there with the schedule ``constant``. With
    the others it falls to ``final_learning_rate`` until ``decay_steps``: in a line, or along half a cosine
    (https://arxiv.org/abs/1608.03983, equation 5, without restarts). Step ``warmup_steps + 1`` has the highest rate,
    step ``decay_steps`` is the last before the final one, as in transformers' schedules.
    """
    highest, lowest, warmup = trainer.learning_rate, trainer.final_learning_rate, trainer.warmup_steps
    if number <= warmup:
        return highest * (number / warmup)
    if trainer.learning_rate_schedule == "constant":
        return highest
    progress = min((number - 1 - warmup) / (trainer.decay_end - warmup), 1.0)
    left = 1.0 - progress if trainer.learning_rate_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return lowest + (highest - lowest) * left
