"""Composes an algorithm from the functions that the configuration names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rft.algorithms import (
    advantages,
    aggregation,
    corrections,
    kl,
    losses,
    shaping,
    token_filters,
    trajectories,
    turns,
)
from rft.algorithms.algorithm import Algorithm, ValueHeadSettings
from rft.algorithms.consistency import check_consistency, correction_of
from rft.algorithms.inputs import Floats, Ints, Needs, TokenBatch, TokenLoss, needs_of
from rft.algorithms.presets import Preset, find_preset
from rft.algorithms.trial import try_algorithm
from rft.config import AlgorithmConfig
from rft.errors import ConfigError
from rft.plugins import resolve

Function = Callable[..., Any]

ADVANTAGES: dict[str, Function] = {
    "ones": advantages.ones,
    "group_normalized": advantages.group_normalized,
    "group_centered": advantages.group_centered,
    "leave_one_out": advantages.leave_one_out,
    "batch_normalized": advantages.batch_normalized,
    "reward_normalized": advantages.reward_normalized,
    "asymmetric": advantages.asymmetric,
    "log_mean_exp": advantages.log_mean_exp,
    "gae": trajectories.gae,
    "returns_to_go": trajectories.returns_to_go,
    "teacher_gap": trajectories.teacher_gap,
    "teacher_jsd": trajectories.teacher_jsd,
    "turn_normalized": turns.turn_normalized,
    "gigpo": turns.gigpo,
}
LOSSES: dict[str, Function] = {name: getattr(losses, name) for name in losses.__all__}
KL: dict[str, Function | None] = {"none": None, "k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
AGGREGATIONS: dict[str, Function] = {
    "token_mean": aggregation.token_mean,
    "sequence_mean": aggregation.sequence_mean,
    "sequence_sum": aggregation.sequence_sum,
}
FILTERS: dict[str, Function] = {
    "not_uniform": shaping.not_uniform,
    "not_truncated": shaping.not_truncated,
    "best": shaping.best,
}
TOKEN_FILTERS: dict[str, Function] = {
    "high_entropy": token_filters.high_entropy,
    "clip_cov": token_filters.clip_cov,
}
TEACHER_ADVANTAGES: dict[str, Function] = {
    "gap": trajectories.reverse_kl_advantages,
    "jsd": trajectories.jsd_advantages,
}
CORRECTIONS: dict[str, Function] = {
    "importance": corrections.untruncated,
    "tis": corrections.truncated,
    "mis": corrections.masked,
}


def compose(config: AlgorithmConfig, *, max_tokens: int = 64) -> Algorithm:
    """Compose the algorithm that ``config`` names and try its functions. ``max_tokens`` is ``rollout.max_tokens``.

    Raises ConfigError if a name is unknown, a plugin cannot be loaded, an option is wrong, or a function fails.
    """
    algorithm = _compose(config, max_tokens)
    try_algorithm(config, algorithm)
    return algorithm


def loss_has_option(config: AlgorithmConfig, option: str) -> bool:
    """Return whether the loss that ``config`` names has that option. Raises ConfigError as :func:`compose` does."""
    return option in _options(_resolve("loss", config.loss or find_preset(config.name).loss, LOSSES))


def _compose(config: AlgorithmConfig, max_tokens: int) -> Algorithm:
    preset = find_preset(config.name)
    estimator = _resolve("advantage", config.advantage or preset.advantage, ADVANTAGES)
    loss = _resolve("loss", config.loss or preset.loss, LOSSES)
    needs = _needs(loss, estimator)
    by_token = _by_token(estimator)
    defaults = preset.advantage_options if config.advantage is None else {}
    estimator = _bind("algorithm.advantage", estimator, {**defaults, **config.advantage_options})
    correction = correction_of(config, preset)
    check_consistency(config, needs, correction)
    return Algorithm(
        name=config.name,
        kinds=preset.kinds,
        shape_rewards=_reward_shaping(config, preset, max_tokens),
        filters=tuple(_resolve("filters", name, FILTERS) for name in config.filters),
        token_filter=_token_filter(config),
        advantages=None if by_token else estimator,
        token_advantages=estimator if by_token else None,
        loss=_complete(_bind("algorithm.loss", loss, _loss_options(config, preset))),
        demonstration_loss=_resolve("loss", preset.demonstrations, LOSSES) if preset.demonstrations else None,
        demonstration_share=_demonstration_share(config, preset),
        token_weights=_token_weights(config, preset, max_tokens),
        rows_as_one=config.row_weight == "sample",
        kl=resolve("algorithm.kl", config.kl, KL),
        kl_coef=config.kl_coef,
        kl_in_reward=config.kl_in == "reward",
        kl_unbiased=config.kl_unbiased,
        entropy_coef=config.entropy_coef,
        old_from_trainer=correction != "none" or (config.old or preset.old) == "trainer",
        correction=partial(CORRECTIONS[correction], low=config.correction_low, high=config.correction_high)
        if correction != "none"
        else None,
        correction_level=config.correction_level,
        rejection=partial(corrections.accepted, low=config.rejection_low, high=config.rejection_high)
        if config.rejection != "none"
        else None,
        rejection_level="token" if config.rejection == "none" else config.rejection,
        off_policy_mask=config.off_policy_mask,
        needs=needs,
        value_head=_value_head(config) if needs.values else None,
        teacher=config.teacher if needs.teacher or config.teacher_coef else None,
        teacher_advantages=TEACHER_ADVANTAGES.get(config.teacher_term) if config.teacher_coef else None,
        teacher_loss=kl.k2 if config.teacher_coef and config.teacher_term == "k2" else None,
        teacher_coef=config.teacher_coef,
    )


def _resolve(field: str, name: str | Function, known: Mapping[str, Function]) -> Function:
    return name if callable(name) else resolve(f"algorithm.{field}", name, known)


def _by_token(estimator: Function) -> bool:
    """Return whether the estimator's advantages are by token.

    Such an estimator has one parameter without default, the trajectories. Others have two: rewards and groups, or with
    ``needs(reward_terms=True)`` three.
    """
    parameters = inspect.signature(estimator).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    by_sample = 3 if needs_of(estimator).reward_terms else 2
    if len(required) not in (1, by_sample):
        raise ConfigError(
            f"algorithm.advantage: {getattr(estimator, '__name__', estimator)} must take (rewards, groups), with "
            "needs(reward_terms=True) also the terms, or one "
            f"rft.algorithms.inputs.Trajectories; it takes {len(required)} arguments"
        )
    return len(required) == 1


def _needs(loss: Function, estimator: Function) -> Needs:
    by_loss, by_estimator = needs_of(loss), needs_of(estimator)
    return Needs(
        reference=by_loss.reference,
        pairs=by_loss.pairs,
        baseline=by_loss.baseline,
        entropy=by_loss.entropy,
        covariance=by_loss.covariance,
        values=by_estimator.values,
        teacher=by_estimator.teacher,
        reward_terms=by_estimator.reward_terms,
        demonstrations=by_loss.demonstrations,
        policy=by_estimator.policy,
        vanishes=by_loss.vanishes and not by_estimator.values,
    )


def _value_head(config: AlgorithmConfig) -> ValueHeadSettings:
    return ValueHeadSettings(
        coef=config.value_coef,
        clip=config.value_clip,
        lr_factor=config.value_lr_factor,
        detach=config.value_detach,
        warmup=config.value_warmup,
    )


def _token_filter(config: AlgorithmConfig) -> Function | None:
    if config.token_filter is None:
        return None
    function = _resolve("token_filter", config.token_filter, TOKEN_FILTERS)
    return _bind("algorithm.token_filter", function, config.token_filter_options)


def _loss_options(config: AlgorithmConfig, preset: Preset) -> dict[str, Any]:
    options = dict(preset.loss_options) if config.loss is None else {}
    fields = {name: getattr(config, name) for name in ("clip_low", "clip_high", "dual_clip")}
    return options | {name: value for name, value in fields.items() if value is not None} | config.loss_options


def _options(function: Function) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY or p.default is not p.empty]


def _bind(field: str, function: Function, options: Mapping[str, Any]) -> Function:
    known = _options(function)
    unknown = sorted(options.keys() - set(known))
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ConfigError(
            f"{field} = '{getattr(function, '__name__', function)}' has no option {', '.join(unknown)}; {has}"
        )
    return partial(function, **options) if options else function


def _complete(loss: Function) -> Callable[[TokenBatch], TokenLoss]:
    """Make a TokenLoss of what a plugin returns: it may return the losses alone, without ratios and clips."""

    def completed(tokens: TokenBatch) -> TokenLoss:
        result = loss(tokens)
        if isinstance(result, TokenLoss):
            return result
        plain = losses.reinforce(tokens)
        return TokenLoss(result, plain.ratio, plain.clipped)

    return completed


def _reward_shaping(config: AlgorithmConfig, preset: Preset, max_tokens: int) -> Callable[[Floats, Ints], Floats]:
    buffer = config.overlong_buffer
    if buffer is None:
        buffer = round(preset.overlong_share * max_tokens)

    def shape(rewards: Floats, counts: Ints) -> Floats:
        if not buffer:
            return rewards
        return rewards + config.overlong_penalty * shaping.overlong_penalty(counts, limit=max_tokens, buffer=buffer)

    return shape


def _demonstration_share(config: AlgorithmConfig, preset: Preset) -> Callable[[int], float]:
    share, decay = config.demonstration_share, config.demonstration_decay
    return partial(
        shaping.share_of_demonstrations,
        peak=config.demonstration_peak,
        valley=preset.demonstration_share if share is None else share,
        warmup=config.demonstration_warmup,
        decay=preset.demonstration_decay if decay is None else decay,
    )


def _token_weights(config: AlgorithmConfig, preset: Preset, max_tokens: int) -> Callable[[Ints | Floats], Floats]:
    function = _resolve("aggregation", config.aggregation or preset.aggregation, AGGREGATIONS)
    if function is aggregation.sequence_sum:
        return partial(function, length=config.sum_length or max_tokens)
    return function
