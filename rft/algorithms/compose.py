"""An algorithm is a composition of functions, chosen by name in the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rft.algorithms import advantages, aggregation, corrections, kl, losses, shaping, trajectories
from rft.algorithms.inputs import Flags, Floats, Ints, Needs, Sequences, TokenLoss, Tokens, Trajectories, needs_of
from rft.algorithms.presets import Preset, find
from rft.config import AlgorithmConfig
from rft.errors import ConfigError
from rft.plugins import is_plugin, load

Function = Callable[..., Any]

ADVANTAGES: dict[str, Function] = {
    "ones": advantages.ones,
    "group_normalized": advantages.group_normalized,
    "group_centered": advantages.group_centered,
    "leave_one_out": advantages.leave_one_out,
    "batch_normalized": advantages.batch_normalized,
    "asymmetric": advantages.asymmetric,
    "log_mean_exp": advantages.log_mean_exp,
    "gae": trajectories.gae,
    "returns_to_go": trajectories.returns_to_go,
    "teacher_gap": trajectories.teacher_gap,
}
LOSSES: dict[str, Function] = {name: getattr(losses, name) for name in losses.__all__}
KL: dict[str, Function] = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
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
CORRECTIONS: dict[str, Function] = {
    "importance": corrections.untruncated,
    "tis": corrections.truncated,
    "mis": corrections.masked,
}


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """How a value head learns, see :func:`rft.training.values.value_loss`."""

    coef: float
    clip: float
    lr_factor: float
    detach: bool


@dataclass(frozen=True, slots=True)
class Algorithm:
    """All that turns rewards into a loss."""

    name: str
    kinds: frozenset[str]
    """Kinds of experiences to learn from."""
    shape: Callable[[Floats, Ints], Floats]
    """(rewards [B], counts [B]) → rewards [B]"""
    filters: tuple[Callable[[Sequences], Flags], ...]
    """Each says which sequences stay in the loss."""
    advantages: Callable[[Floats, Ints], Floats] | None
    """(rewards [B], groups [B]) → advantages [B]; None if they are made by token."""
    token_advantages: Callable[[Trajectories], Any] | None
    """→ advantages [M], or an :class:`rft.algorithms.trajectories.Estimate`"""
    loss: Callable[[Tokens], TokenLoss]
    demonstration_loss: Callable[[Tokens], TokenLoss] | None
    """None: demonstrations have the same loss as all."""
    demonstration_share: Callable[[int], float]
    """Step (from 1) → μ"""
    weights: Callable[[Ints], Floats]
    """action-token counts [B] → weight of each token, by sequence [B]"""
    kl: Callable[[Tensor, Tensor], Tensor] | None
    """(logprobs [N], reference [N]) → estimates [N]; None when there is no KL term."""
    kl_coef: float
    kl_in_reward: bool
    entropy_coef: float
    old_is_trainers: bool
    """Ratios are taken against the policy as the step began."""
    correction: Callable[[Tensor], Tensor] | None
    """log-ratios [N] → weights [N]"""
    correction_of_sequences: bool
    needs: Needs
    """Of loss and estimator together."""
    values: ValueLoss | None
    teacher: str | None


def compose(config: AlgorithmConfig, *, max_tokens: int = 64) -> Algorithm:
    """The algorithm that ``config`` names. ``max_tokens`` is ``rollout.max_tokens``.

    Raises ConfigError when a name is unknown, a function of the user's cannot be loaded, or an option is wrong.
    """
    algorithm = _compose(config, max_tokens)
    _try(config, algorithm)
    return algorithm


def _compose(config: AlgorithmConfig, max_tokens: int) -> Algorithm:
    preset = find(config.name)
    estimator = _function("advantage", config.advantage or preset.advantage, ADVANTAGES)
    loss = _function("loss", config.loss or preset.loss, LOSSES)
    own = _needs(loss, estimator)
    by_token = _by_token(estimator)
    defaults = preset.advantage_options if config.advantage is None else {}
    estimator = _bind("algorithm.advantage", estimator, {**defaults, **config.advantage_options})
    correction = config.correction or ("none" if config.old == "sampler" else preset.correction)
    if correction != "none" and config.old == "sampler":
        raise ConfigError(
            "algorithm.old = 'sampler' contradicts algorithm.correction: the correction is for ratios against the "
            "trainer's own log-probabilities. Leave algorithm.old out, or set correction = 'none'"
        )
    if own.teacher and not config.teacher:
        raise ConfigError("algorithm.teacher must name the teacher's model folder")
    return Algorithm(
        name=config.name,
        kinds=preset.kinds,
        shape=_shape(config, preset, max_tokens),
        filters=tuple(_function("filters", name, FILTERS) for name in config.filters),
        advantages=None if by_token else estimator,
        token_advantages=estimator if by_token else None,
        loss=_checked(_bind("algorithm.loss", loss, _loss_options(config, preset))),
        demonstration_loss=_function("loss", preset.demonstrations, LOSSES) if preset.demonstrations else None,
        demonstration_share=_share(config, preset),
        weights=_weights(config, preset, max_tokens),
        kl=None if config.kl == "none" else _function("kl", config.kl, KL),
        kl_coef=config.kl_coef,
        kl_in_reward=config.kl_in == "reward",
        entropy_coef=config.entropy_coef,
        old_is_trainers=correction != "none" or (config.old or preset.old) == "trainer",
        correction=partial(CORRECTIONS[correction], low=config.correction_low, high=config.correction_high)
        if correction != "none"
        else None,
        correction_of_sequences=config.correction_level == "sequence",
        needs=own,
        values=ValueLoss(config.value_coef, config.value_clip, config.value_lr_factor, config.value_detach)
        if own.values
        else None,
        teacher=config.teacher if own.teacher else None,
    )


def takes(config: AlgorithmConfig, option: str) -> bool:
    """Whether the loss that ``config`` names has that option. Raises ConfigError as :func:`compose`."""
    return option in _options(_function("loss", config.loss or find(config.name).loss, LOSSES))


def _function(field: str, name: str | Function, known: Mapping[str, Function]) -> Function:
    if callable(name):
        return name
    if name in known:
        return known[name]
    if is_plugin(name):
        return load(name)
    raise ConfigError(
        f"algorithm.{field} = '{name}' is not known; choose one of {', '.join(known)}, or name your own as "
        "package.module:function"
    )


def _by_token(estimator: Function) -> bool:
    """An estimator by token has one parameter without default, the trajectories; others have rewards and groups."""
    parameters = inspect.signature(estimator).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) not in (1, 2):
        raise ConfigError(
            f"algorithm.advantage: {getattr(estimator, '__name__', estimator)} must take (rewards, groups), or one "
            f"rft.algorithms.inputs.Trajectories; it takes {len(required)} arguments"
        )
    return len(required) == 1


def _needs(loss: Function, estimator: Function) -> Needs:
    wanted, made = needs_of(loss), needs_of(estimator)
    return Needs(
        reference=wanted.reference,
        pairs=wanted.pairs,
        baseline=wanted.baseline,
        values=made.values,
        teacher=made.teacher,
        policy=made.policy,
        vanishes=wanted.vanishes and not made.values,
    )


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


def _checked(loss: Function) -> Callable[[Tokens], TokenLoss]:
    """A loss of the user's may return the losses alone; what else it says is then made here."""

    def complete(tokens: Tokens) -> TokenLoss:
        result = loss(tokens)
        if isinstance(result, TokenLoss):
            return result
        plain = losses.reinforce(tokens)
        return TokenLoss(result, plain.ratio, plain.clipped)

    return complete


def _try(config: AlgorithmConfig, algorithm: Algorithm) -> None:
    """Fail now rather than at the first step: the functions are run on a group of two samples, one token each."""
    rewards, groups = np.array([1.0, 0.0]), np.array([0, 0])
    zeros, each = torch.zeros(2), torch.arange(2)
    tokens = Tokens(zeros - 1, zeros - 1, zeros + 1, each, torch.tensor([1.0, 0.0]), torch.zeros(2).long(), zeros - 1)
    counts, flags = np.array([1, 1]), np.array([False, False])
    trial = Trajectories(rewards, groups, np.array([0, 1]), counts, *(np.zeros(2) for _ in range(4)))
    tried: list[tuple[str, Function, tuple[Any, ...]]] = [
        ("loss", lambda value: algorithm.loss(value).loss, (tokens,)),
        ("aggregation", algorithm.weights, (counts,)),
        *(("filters", keep, (Sequences(rewards, groups, counts, flags),)) for keep in algorithm.filters),
    ]
    if algorithm.kl is not None:
        tried.append(("kl", algorithm.kl, (zeros - 1, zeros - 1)))
    if algorithm.advantages is not None:
        tried.append(("advantage", algorithm.advantages, (rewards, groups)))
    if algorithm.token_advantages is not None:
        tried.append(("advantage", algorithm.token_advantages, (trial,)))
    for field, function, arguments in tried:
        name = getattr(config, field) or f"of {config.name}"
        # The functions may be the user's, which may raise anything.
        try:
            result = function(*arguments)
        except Exception as error:
            raise ConfigError(
                f"algorithm.{field} ({name}) fails on two samples of one token: {type(error).__name__}: {error}"
            ) from error
        made = getattr(result, "advantages", result)
        shape = tuple(getattr(made, "shape", ()))
        if shape != (2,):
            raise ConfigError(
                f"algorithm.{field} ({name}) must return one number for each of two, it returned "
                f"{type(made).__name__} of shape {shape}"
            )


def _shape(config: AlgorithmConfig, preset: Preset, max_tokens: int) -> Callable[[Floats, Ints], Floats]:
    buffer = config.overlong_buffer
    if buffer is None:
        buffer = round(preset.overlong_share * max_tokens)

    def shape(rewards: Floats, counts: Ints) -> Floats:
        if not buffer:
            return rewards
        return rewards + config.overlong_penalty * shaping.overlong_penalty(counts, limit=max_tokens, buffer=buffer)

    return shape


def _share(config: AlgorithmConfig, preset: Preset) -> Callable[[int], float]:
    share, decay = config.demonstration_share, config.demonstration_decay
    return partial(
        shaping.share_of_demonstrations,
        peak=config.demonstration_peak,
        valley=preset.demonstration_share if share is None else share,
        warmup=config.demonstration_warmup,
        decay=preset.demonstration_decay if decay is None else decay,
    )


def _weights(config: AlgorithmConfig, preset: Preset, max_tokens: int) -> Callable[[Ints], Floats]:
    function = _function("aggregation", config.aggregation or preset.aggregation, AGGREGATIONS)
    if function is aggregation.sequence_sum:
        return partial(function, length=config.sum_length or max_tokens)
    return function
