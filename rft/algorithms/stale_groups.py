"""Says what bounds the weight of tokens that are staler than ``trainer.max_staleness``, for ``buffer.too_stale``.

The weight of a token is the size of its loss's gradient over that of plain REINFORCE, at the policy π₀ as the step
began. It must account for π₀/μ, its ratio to the sampler μ, which grows without limit as tokens get older.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rft.algorithms.presets import find_preset
from rft.config import AlgorithmConfig, Config
from rft.errors import ConfigError

DUAL_CLIP = 2.0
"""``algorithm.dual_clip`` if samples may be far from the policy and the configuration sets none. Without it, a token of
a bad sample weighs as much as the policy has come to prefer it since."""


def algorithm_of(config: Config) -> AlgorithmConfig:
    """Return the algorithm that a trainer with this configuration uses.

    Raises ConfigError if too stale groups are kept and nothing bounds their weight.
    """
    algorithm = config.algorithm
    if config.buffer.too_stale != "keep":
        return algorithm
    if algorithm.dual_clip is None and _loss(algorithm) == "clipped" and _uses_sampler(algorithm):
        algorithm = algorithm.model_copy(update={"dual_clip": DUAL_CLIP})
    if weight_bound(algorithm) is None:
        raise ConfigError(
            "buffer.too_stale = 'keep' needs a bounded weight that accounts for staleness, and algorithm.name = "
            f"'{algorithm.name}' has none as it is configured. Set algorithm.correction = 'tis' (or 'mis') or "
            f"algorithm.rejection = 'token', use a loss against the sampler that is bounded ({', '.join(_BOUNDS)}), or "
            "set buffer.too_stale = 'drop' or 'hold'"
        )
    return algorithm


def weight_bound(algorithm: AlgorithmConfig) -> float | None:
    """Return the largest weight of a token, whatever its ratio π₀/μ; None if there is none, or if it is not known."""
    correction = _correction(algorithm)
    if correction in ("tis", "mis"):
        return algorithm.correction_high
    loss = _loss(algorithm)
    if algorithm.rejection == "token" and _is_ratio(algorithm, correction, loss):
        return max(1.0, algorithm.rejection_high)
    if not _uses_sampler(algorithm) or loss not in _BOUNDS:
        return None
    preset = find_preset(algorithm.name)
    options = dict(preset.loss_options) if algorithm.loss is None else {}
    fields = {name: getattr(algorithm, name) for name in ("clip_low", "clip_high", "dual_clip")}
    options |= {name: value for name, value in fields.items() if value is not None} | algorithm.loss_options
    return _BOUNDS[loss](options)


def _is_ratio(algorithm: AlgorithmConfig, correction: str, loss: object) -> bool:
    """Return whether the weight of a token is its own ratio or less, or 1."""
    if correction == "importance":
        return algorithm.correction_level == "token"
    return _uses_sampler(algorithm) and loss in ("clipped", "rec")


def _clipped(options: Mapping[str, Any]) -> float | None:
    dual_clip = options.get("dual_clip")
    # A good token's ratio is clipped from above, a bad one's only by the dual clip.
    return None if dual_clip is None else max(float(dual_clip), 1 + float(options.get("clip_high", 0.2)))


def _cispo(options: Mapping[str, Any]) -> float:
    return 1 + float(options.get("clip_high", 0.28))


def _sapo(options: Mapping[str, Any]) -> float:
    """Bound ``r · sech²(x / 2)`` with x = tau · (r - 1): sech²(x / 2) is at most 1 and at most 4 · exp(-x).

    The two meet at x = log 4, and beyond r · exp(-x) only falls.
    """
    taus = (float(options.get(name, default)) for name, default in (("tau_positive", 1.0), ("tau_negative", 1.05)))
    return max(1 + math.log(4) / tau for tau in taus)


def _rec(options: Mapping[str, Any]) -> float | None:
    return None if options.get("importance") else 1.0


def _at_most(bound: float, options: Mapping[str, Any]) -> float:
    return bound


_BOUNDS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "clipped": _clipped,
    "cispo": _cispo,
    "sapo": _sapo,
    "topr": partial(_at_most, 1.0),
    "rec": _rec,
}
"""Bounds of the losses that have one, from their options."""


def _loss(algorithm: AlgorithmConfig) -> object:
    return algorithm.loss or find_preset(algorithm.name).loss


def _correction(algorithm: AlgorithmConfig) -> str:
    return algorithm.correction or ("none" if algorithm.old == "sampler" else find_preset(algorithm.name).correction)


def _uses_sampler(algorithm: AlgorithmConfig) -> bool:
    """Return whether the loss's ratios are taken against the sampler."""
    old = algorithm.old or find_preset(algorithm.name).old
    return _correction(algorithm) == "none" and old == "sampler"
