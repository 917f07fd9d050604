"""Defines what an algorithm's name stands for: its functions and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from rft.errors import ConfigError
from rft.plugins import USER_FAILURES, unknown_name

ENTRY_POINTS = "stream_rft.algorithms"
"""Entry-point group under which other packages offer a :class:`Preset`; the entry point's name is the algorithm's."""

ROLLOUTS = frozenset({"rollout"})
EVERYTHING = frozenset({"rollout", "demonstration", "preference"})


@dataclass(frozen=True, slots=True)
class Preset:
    """The defaults of one algorithm, used where the configuration sets nothing."""

    advantage: str | Callable[..., Any]
    """Name as in ``algorithm.advantage``, or the function itself."""
    loss: str | Callable[..., Any]
    """Name as in ``algorithm.loss``, or the function itself."""
    aggregation: str | Callable[..., Any] = "token_mean"
    """Name as in ``algorithm.aggregation``, or the function itself."""
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for ``loss``."""
    advantage_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for ``advantage``."""
    demonstrations: str | Callable[..., Any] | None = None
    """Loss of demonstrations: a name as in ``algorithm.loss``, or the function itself. If set, rollouts and
    demonstrations are mixed by share. None: demonstrations have the same loss as all others."""
    demonstration_share: float = 0.1
    """Default of ``algorithm.demonstration_share``."""
    demonstration_decay: int = 0
    """Default of ``algorithm.demonstration_decay``, in steps."""
    old: Literal["sampler", "trainer"] = "sampler"
    """Default of ``algorithm.old``."""
    correction: Literal["none", "importance", "tis", "mis"] = "none"
    """Default of ``algorithm.correction``."""
    overlong_share: float = 0.0
    """Default of ``algorithm.overlong_buffer``, as a share of ``rollout.max_tokens``."""
    kinds: frozenset[str] = ROLLOUTS
    """Kinds of experiences that the algorithm can learn from. Others are filtered, because ratios need samples that the
    policy wrote."""


PRESETS: dict[str, Preset] = {
    "grpo": Preset("group_normalized", "clipped"),
    "dr_grpo": Preset("group_centered", "clipped", "sequence_sum"),
    "dapo": Preset("group_normalized", "clipped", loss_options={"clip_high": 0.28}, overlong_share=0.2),
    "gdpo": Preset("reward_normalized", "clipped"),
    "gspo": Preset("group_normalized", "gspo", "sequence_mean"),
    "cispo": Preset("group_normalized", "cispo"),
    "sapo": Preset("group_normalized", "sapo", "sequence_mean"),
    "gigpo": Preset("gigpo", "clipped", "sequence_mean"),
    "rloo": Preset("leave_one_out", "clipped", "sequence_sum"),
    "reinforce_pp": Preset("returns_to_go", "clipped"),
    "reinforce_pp_baseline": Preset("batch_normalized", "clipped"),
    "ppo": Preset("gae", "clipped"),
    "decoupled_ppo": Preset("group_normalized", "clipped", old="trainer", correction="importance"),
    "opmd": Preset("group_centered", "opmd", "sequence_mean"),
    "asymre": Preset("asymmetric", "reinforce", "sequence_sum", kinds=EVERYTHING),
    "topr": Preset("group_centered", "topr", "sequence_sum"),
    "rec": Preset("group_centered", "rec", "sequence_sum"),
    "sft": Preset("ones", "reinforce", kinds=EVERYTHING),
    "dpo": Preset("ones", "dpo", "sequence_mean", kinds=EVERYTHING),
    "kto": Preset("ones", "kto", "sequence_mean", kinds=EVERYTHING),
    "mix": Preset("group_normalized", "clipped", demonstrations="reinforce", kinds=EVERYTHING - {"preference"}),
    "chord": Preset(
        "group_normalized", "clipped", demonstrations="chord", demonstration_share=0.05, demonstration_decay=200,
        kinds=EVERYTHING - {"preference"},
    ),
    "luffy": Preset("group_normalized", "luffy", kinds=EVERYTHING - {"preference"}),
    "distill": Preset("teacher_gap", "clipped"),
}  # fmt: skip


def find_preset(name: str) -> Preset:
    """Return the preset of that name: a shipped one, or another package's entry point.

    Raises ConfigError if there is none, or the entry point cannot be loaded.
    """
    if name in PRESETS:
        return PRESETS[name]
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise ConfigError(f"algorithm.name = {unknown_name(name, [*PRESETS, *sorted(offered)])}")
    try:
        preset = offered[name].load()
    # Loading runs another package's code, which may raise anything.
    except USER_FAILURES as error:
        raise ConfigError(
            f"algorithm.name = '{name}': loading its entry point {offered[name].value} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(preset, Preset):
        raise ConfigError(
            f"algorithm.name = '{name}': its entry point {offered[name].value} is a {type(preset).__name__}, not an "
            "rft.algorithms.presets.Preset"
        )
    return preset
