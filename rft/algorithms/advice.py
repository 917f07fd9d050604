"""Finds settings of an algorithm that are allowed but seldom meant. Needs no torch, so that it answers at once."""

from __future__ import annotations

from rft.algorithms.presets import PRESETS
from rft.config import Config

LORA_RATE = 5e-5
"""Learning rates below this are meant for whole models."""
TEACHER_ADVANTAGES = frozenset({"teacher_gap", "teacher_jsd"})


def algorithm_warnings(config: Config) -> list[str]:
    """Return a warning for each setting that hardly does what its user expects: what happens, and what to do."""
    return [warning for applies, warning in _advice(config) if applies]


def _advice(config: Config) -> list[tuple[bool, str]]:
    algorithm, trainer = config.algorithm, config.trainer
    advantage = algorithm.advantage or (PRESETS[algorithm.name].advantage if algorithm.name in PRESETS else None)
    shipped = {preset.advantage for preset in PRESETS.values()}
    return [
        (
            algorithm.kl == "k1" and algorithm.kl_in == "loss" and algorithm.kl_coef > 0 and not algorithm.kl_unbiased,
            "algorithm.kl = 'k1' in the loss: its gradient is 0 on average on-policy, so it does not keep the policy "
            "near the initial weights. Set algorithm.kl_unbiased = true, kl = 'k2' or 'k3', or kl_in = 'reward'",
        ),
        (
            trainer.lora.rank > 0 and trainer.learning_rate < LORA_RATE,
            f"trainer.learning_rate = {trainer.learning_rate:g} is low for trainer.lora: adapters need about ten times "
            "the rate of the whole model. Set learning_rate to about 1e-4",
        ),
        (
            algorithm.value_warmup >= trainer.steps,
            f"algorithm.value_warmup = {algorithm.value_warmup} covers all {trainer.steps} trainer.steps, so the "
            "policy never learns. Lower value_warmup",
        ),
        (
            algorithm.teacher is not None and not algorithm.teacher_coef and advantage in shipped - TEACHER_ADVANTAGES,
            f"algorithm.teacher has no effect: '{algorithm.name}' learns from rewards alone. Set "
            "algorithm.teacher_coef to add the teacher's term, or name = 'distill' to learn from the teacher alone",
        ),
        (
            advantage == "reward_normalized" and config.processor.drop_uniform_groups,
            "processor.drop_uniform_groups compares sums of rewards, so it drops groups whose single rewards differ, "
            f"from which '{algorithm.name}' would learn. Set drop_uniform_groups = false",
        ),
    ]
