"""Checks whether a trainer's step fits into memory, and says what to change if it does not."""

from __future__ import annotations

from typing import Any, Literal

from rft.config import Config
from rft.training.memory import MemoryEstimate, affordable_tokens, estimate_memory, model_shape

MIB, GIB = 2**20, 2**30
_TIGHT = 0.9
"""Share of the free memory above which a step may fail although the estimate fits: the estimate is rough."""


def judge_memory(
    config: Config, model: Any, *, reference: bool, free: int, device: str
) -> tuple[Literal["ok", "warn", "fail"], str, str]:
    """Return (level, what, advice) for a trainer with ``model`` on a ``device`` with ``free`` bytes.

    On a CPU all ranks share ``free``; on GPUs each rank has that much.
    """
    shape, trainer = model_shape(model, config.trainer), config.trainer
    needed = estimate_memory(shape, trainer, reference=reference)
    ranks = trainer.ranks if trainer.engine == "deepspeed" else 1
    shared = device == "cpu"
    total = needed.per_rank * ranks + needed.publishing if shared else needed.per_rank
    what = (
        f"a step of {trainer.model_key} needs about {_size(total)} of {'memory' if shared else 'each GPU'} "
        f"({_parts(needed, ranks if shared else 1)}); {_size(free)} are free"
    )
    if total <= _TIGHT * free:
        return "ok", what, ""
    rest = total - needed.activations * (ranks if shared else 1)
    tokens = affordable_tokens(shape, trainer, int(_TIGHT * free - rest) // (ranks if shared else 1))
    return ("fail" if total > free else "warn"), what, _advice(config, needed, tokens)


def _advice(config: Config, needed: MemoryEstimate, tokens: int) -> str:
    trainer = config.trainer
    ways = []
    if tokens >= config.rollout.max_tokens:
        ways.append(f"set trainer.micro_batch_tokens = {tokens}")
    if not trainer.gradient_checkpointing and needed.activations > needed.per_rank // 4:
        ways.append("set trainer.gradient_checkpointing = true")
    if not trainer.lora.rank:
        ways.append("train adapters only (trainer.lora.rank = 16)")
    if trainer.engine == "torch":
        ways.append("split the optimizer over GPUs (trainer.engine = 'deepspeed', trainer.ranks)")
    elif trainer.zero_stage < 3:
        ways.append("set trainer.zero_stage = 3")
    else:
        ways.append("raise trainer.ranks")
    if needed.reference:
        ways.append("remove algorithm.kl")
    return "; or ".join(ways)


def _parts(needed: MemoryEstimate, ranks: int) -> str:
    parts = {
        "weights": needed.weights * ranks,
        "gradients": needed.gradients * ranks,
        "optimizer": needed.optimizer * ranks,
        "reference": needed.reference * ranks,
        "activations": needed.activations * ranks,
    }
    return ", ".join(f"{name} {_size(value)}" for name, value in parts.items() if value)


def _size(value: int) -> str:
    return f"{value / GIB:.1f} GiB" if value >= GIB // 4 else f"{value / MIB:.1f} MiB"
