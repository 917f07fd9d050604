"""Checks the algorithm of each trainer."""

from __future__ import annotations

from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.algorithms.advice import algorithm_warnings
from rft.config import AlgorithmConfig


def algorithms(facts: Facts) -> Iterator[Finding]:
    """Find unknown names, wrong options, functions that do not load, and settings that hardly do what one expects."""
    trainers = facts.trainers
    if not all(trainer.algorithm == AlgorithmConfig() and trainer.buffer.too_stale != "keep" for trainer in trainers):
        # The import takes seconds, and most runs have nothing to check.
        from rft.algorithms.compose import compose
        from rft.algorithms.stale_groups import algorithm_of
        from rft.training.reward_weights import check_reward_terms

        for trainer in trainers:
            check_reward_terms(compose(algorithm_of(trainer), max_tokens=trainer.rollout.max_tokens), trainer.processor)
    what = f"algorithm {facts.config.algorithm.name}"
    warnings = [warning for trainer in trainers for warning in algorithm_warnings(trainer)]
    for warning in dict.fromkeys(warnings):
        yield Finding("warn", what, warning)
    if not warnings:
        yield Finding("ok", what)
