"""An algorithm is a composition of functions, chosen by name in the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from rft.algorithms import advantages, aggregation, kl, losses
from rft.config import AlgorithmConfig

AdvantageFunction = Callable[[advantages.Floats, advantages.Groups], advantages.Floats]
LossFunction = Callable[[Tensor, Tensor, Tensor], losses.TokenLoss]
KlFunction = Callable[[Tensor, Tensor], Tensor]
WeightFunction = Callable[[aggregation.Counts], aggregation.Floats]

ADVANTAGES: dict[str, AdvantageFunction] = {
    "ones": advantages.ones,
    "group_normalized": advantages.group_normalized,
    "group_centered": advantages.group_centered,
}
LOSSES: dict[str, Callable[..., losses.TokenLoss]] = {"clipped": losses.clipped, "reinforce": losses.reinforce}
KL: dict[str, KlFunction] = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
AGGREGATIONS: dict[str, WeightFunction] = {
    "token_mean": aggregation.token_mean,
    "sequence_mean": aggregation.sequence_mean,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """What an algorithm's name stands for, as far as its fields are not set."""

    advantage: str
    loss: str


PRESETS: dict[str, Preset] = {"grpo": Preset("group_normalized", "clipped"), "sft": Preset("ones", "reinforce")}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """All that an engine needs to turn rewards into a loss."""

    advantages: AdvantageFunction
    """(rewards [B], groups [B]) → advantages [B]"""
    token_loss: LossFunction
    """(logprobs [N], behaviour [N], advantages [N]) → TokenLoss"""
    token_weights: WeightFunction
    """action-token counts [B] → weight of each token, by sequence [B]"""
    kl: KlFunction | None
    """(logprobs [N], reference [N]) → estimates [N]; None when no reference model is needed."""
    kl_coef: float


def compose(config: AlgorithmConfig) -> Algorithm:
    """The algorithm that ``config`` names."""
    preset = PRESETS[config.name]
    return Algorithm(
        advantages=ADVANTAGES[config.advantage or preset.advantage],
        token_loss=partial(
            LOSSES[config.loss or preset.loss],
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
        ),
        token_weights=AGGREGATIONS[config.aggregation],
        kl=None if config.kl == "none" else KL[config.kl],
        kl_coef=config.kl_coef,
    )
