"""Refuses settings of an algorithm that contradict each other, with what to do. Needs no torch."""

from __future__ import annotations

from typing import Protocol

from rft.algorithms.presets import Preset
from rft.config import AlgorithmConfig
from rft.errors import ConfigError


class Needed(Protocol):
    """The part of :class:`rft.algorithms.inputs.Needs` that settings may contradict."""

    @property
    def reference(self) -> bool: ...

    @property
    def teacher(self) -> bool: ...

    @property
    def values(self) -> bool: ...


def correction_of(config: AlgorithmConfig, preset: Preset) -> str:
    """Return the correction that is used."""
    return config.correction or ("none" if config.old == "sampler" else preset.correction)


def check_consistency(config: AlgorithmConfig, needs: Needed, correction: str) -> None:
    """Raise ConfigError when settings contradict each other.

    Args:
        needs: of the loss and the estimator that are used.
        correction: the one that is used.
    """
    for contradicts, message in _contradictions(config, needs, correction):
        if contradicts:
            raise ConfigError(message)


def _contradictions(config: AlgorithmConfig, needs: Needed, correction: str) -> list[tuple[bool, str]]:
    return [
        (
            correction != "none" and config.old == "sampler",
            "algorithm.old = 'sampler' contradicts algorithm.correction: the correction is for ratios against the "
            "trainer's own log-probabilities. Leave algorithm.old out, or set correction = 'none'",
        ),
        (
            bool(config.reference_reset) and config.kl == "none" and not needs.reference,
            f"algorithm.reference_reset: '{config.name}' without a KL term compares with no reference. Set "
            "algorithm.kl, or leave reference_reset out",
        ),
        (
            config.kl_unbiased and config.kl_in == "reward",
            "algorithm.kl_unbiased is for a KL term in the loss: in the reward it has no gradient. Set kl_in = 'loss', "
            "or leave kl_unbiased out",
        ),
        (
            (needs.teacher or config.teacher_coef > 0) and not config.teacher,
            "algorithm.teacher must name the teacher's model folder",
        ),
        (
            needs.teacher and config.teacher_coef > 0,
            f"algorithm.teacher_coef adds a teacher to rewards, but the advantages of '{config.name}' are the "
            "teacher's already. Leave teacher_coef out, or choose an algorithm that learns from rewards",
        ),
        (
            config.value_warmup > 0 and not needs.values,
            f"algorithm.value_warmup: '{config.name}' has no value head to warm up. Leave it out, or set "
            "algorithm.name = 'ppo'",
        ),
    ]
