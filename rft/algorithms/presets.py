"""What an algorithm's name stands for: which functions, with which options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from rft.errors import ConfigError

ENTRY_POINTS = "stream_rft.algorithms"
"""Group in which other packages offer a :class:`Preset` under an algorithm's name."""

ROLLOUTS = frozenset({"rollout"})
EVERYTHING = frozenset({"rollout", "demonstration", "preference"})


@dataclass(frozen=True, slots=True)
class Preset:
    """An algorithm, as far as the configuration's fields are not set."""

    advantage: str | Callable[..., Any]
    """Name as in ``algorithm.advantage``, or the function itself."""
    loss: str | Callable[..., Any]
    """Name as in ``algorithm.loss``, or the function itself."""
    aggregation: str | Callable[..., Any] = "token_mean"
    """Name as in ``algorithm.aggregation``, or the function itself."""
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    advantage_options: Mapping[str, Any] = field(default_factory=dict)
    demonstrations: str | Callable[..., Any] | None = None
    """Loss of demonstrations, if they have one of their own; then the two are mixed by share."""
    demonstration_share: float = 0.1
    demonstration_decay: int = 0
    old: Literal["sampler", "trainer"] = "sampler"
    correction: Literal["none", "importance", "tis", "mis"] = "none"
    overlong_share: float = 0.0
    """Default of ``overlong_buffer`` over ``rollout.max_tokens``."""
    kinds: frozenset[str] = ROLLOUTS
    """Kinds of experiences that it can learn from; others count as filtered. Ratios need what the policy wrote."""


PRESETS: dict[str, Preset] = {
    "grpo": Preset("group_normalized", "clipped"),
    "dr_grpo": Preset("group_centered", "clipped", "sequence_sum"),
    "dapo": Preset("group_normalized", "clipped", loss_options={"clip_high": 0.28}, overlong_share=0.2),
    "gspo": Preset("group_normalized", "gspo", "sequence_mean"),
    "cispo": Preset("group_normalized", "cispo"),
    "sapo": Preset("group_normalized", "sapo", "sequence_mean"),
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
    "distill": Preset("teacher_gap", "clipped"),
}  # fmt: skip


def find(name: str) -> Preset:
    """The preset of that name: shipped, or another package's entry point. Raises ConfigError."""
    if name in PRESETS:
        return PRESETS[name]
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        known = ", ".join([*PRESETS, *sorted(offered)])
        raise ConfigError(f"algorithm.name = '{name}' is not known; choose one of: {known}")
    try:
        preset = offered[name].load()
    # Loading runs another package's code, which may raise anything.
    except Exception as error:
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
