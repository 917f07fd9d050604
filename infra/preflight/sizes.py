"""Checks numbers that are allowed, one by one, and cannot be meant."""

from __future__ import annotations

import os
from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.errors import ConfigError

MOST_STEPS = 10**8
"""Three years at a second each."""
MOST_HELD_OUT = 10**7
MOST_ROLLOUTS = 10**6
"""Of one step."""
MOST_THREADS = 4
"""Of one role, for each core of the machine."""


def sizes(facts: Facts) -> Iterator[Finding]:
    """Find a number of steps, tasks, rollouts or processes that no run can reach."""
    config = facts.config
    for own in facts.trainers:
        _below(f"trainer.steps = {own.trainer.steps:,}", own.trainer.steps, MOST_STEPS, "steps")
        rollouts = own.trainer.groups_per_step * config.rollout.samples
        _below(
            f"trainer.groups_per_step · rollout.samples = {rollouts:,}", rollouts, MOST_ROLLOUTS, "rollouts in a step"
        )
        if own.trainer.learning_rate >= 0.1:
            yield Finding(
                "warn",
                f"trainer.learning_rate = {own.trainer.learning_rate:g}",
                "AdamW destroys a language model at such a rate; usual ones are 1e-6 to 1e-4, with LoRA up to 1e-3",
            )
        if own.trainer.warmup_steps >= own.trainer.steps:
            yield Finding(
                "warn",
                f"trainer.warmup_steps = {own.trainer.warmup_steps} is not below trainer.steps = {own.trainer.steps}",
                "the learning rate is never reached; lower warmup_steps",
            )
    for name, chosen in config.eval_sets.items():
        answers = chosen.tasks * chosen.samples
        _below(f"{answers:,} answers to the held-out set {name}", answers, MOST_HELD_OUT, "answers")
    cores = os.cpu_count() or 1
    for setting, threads in (("trainer", config.trainer.threads), ("policy", config.policy.threads)):
        if threads > MOST_THREADS * cores:
            yield Finding(
                "warn",
                f"{setting}.threads = {threads}, but this machine has {cores} cores",
                "more threads than cores only wait for each other; lower it",
            )


def _below(what: str, value: int, most: int, unit: str) -> None:
    if value > most:
        raise ConfigError(f"{what} cannot be meant: more than {most:,} {unit} take longer than anyone waits; lower it")
