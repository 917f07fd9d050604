"""Checks the algorithm of each trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.preflight import shipped_functions
from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.algorithms.advice import algorithm_warnings
from rft.algorithms.consistency import check_consistency, correction_of
from rft.algorithms.presets import PRESETS, Preset, find_preset
from rft.algorithms.stale_groups import algorithm_of
from rft.config import AlgorithmConfig, Config
from rft.errors import ConfigError
from rft.plugins import is_plugin


@dataclass(frozen=True, slots=True)
class _Needed:
    reference: bool
    teacher: bool
    values: bool


def algorithms(facts: Facts) -> Iterator[Finding]:
    """Find unknown names, wrong options, functions that do not load, and settings that hardly do what one expects."""
    trainers = facts.trainers
    for trainer in trainers:
        _check(trainer)
    what = f"algorithm {facts.config.algorithm.name}"
    warnings = [warning for trainer in trainers for warning in algorithm_warnings(trainer)]
    for warning in dict.fromkeys(warnings):
        yield Finding("warn", what, warning)
    if not warnings:
        yield Finding("ok", what)


def _check(trainer: Config) -> None:
    config = algorithm_of(trainer)
    preset = find_preset(config.name)
    if config == AlgorithmConfig():
        return
    if is_tried(config):
        # This imports torch. Values of options, and functions of others, show their faults only when they are called.
        from rft.algorithms.compose import compose
        from rft.training.reward_weights import check_reward_terms

        check_reward_terms(compose(config, max_tokens=trainer.rollout.max_tokens), trainer.processor)
    else:
        _check_names(config, preset)


def is_tried(config: AlgorithmConfig) -> bool:
    """Return whether the algorithm's functions are called: if it has options, or functions that are not shipped."""
    named = [config.advantage, config.loss, config.kl, config.aggregation, config.token_filter, *config.filters]
    options = (config.advantage_options, config.loss_options, config.token_filter_options)
    if config.name not in PRESETS or any(options) or any(name and is_plugin(name) for name in named):
        return True
    advantage = config.advantage or str(PRESETS[config.name].advantage)
    known = advantage in shipped_functions.names("ADVANTAGES")
    return known and "reward_terms" in shipped_functions.needs(advantage)


def _check_names(config: AlgorithmConfig, preset: Preset) -> None:
    """Do what ``compose`` does to names and settings, without importing the functions."""
    advantage, loss = config.advantage or str(preset.advantage), config.loss or str(preset.loss)
    named = {
        "advantage": (advantage, "ADVANTAGES"),
        "loss": (loss, "LOSSES"),
        "kl": (config.kl, "KL"),
        "aggregation": (config.aggregation or str(preset.aggregation), "AGGREGATIONS"),
        "token_filter": (config.token_filter, "TOKEN_FILTERS"),
    }
    for field, (name, table) in named.items():
        if name is not None:
            shipped_functions.check_name(f"algorithm.{field}", name, table)
    for name in config.filters:
        shipped_functions.check_name("algorithm.filters", name, "FILTERS")
    known = shipped_functions.options(loss)
    fields = [name for name in ("clip_low", "clip_high", "dual_clip") if getattr(config, name) is not None]
    if unknown := sorted(set(fields) - set(known)):
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"algorithm.loss = '{loss}' has no option {', '.join(unknown)}; {has}")
    by_loss, by_advantage = shipped_functions.needs(loss), shipped_functions.needs(advantage)
    needed = _Needed("reference" in by_loss, "teacher" in by_advantage, "values" in by_advantage)
    check_consistency(config, needed, correction_of(config, preset))
