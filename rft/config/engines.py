"""How the trainer computes: engine, ranks, packing, LoRA."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rft.config.section import Section


class LoraConfig(Section):
    rank: int = Field(default=0, ge=0, le=1024)
    """Rank of the adapters (LoRA, arXiv:2106.09685); 0 trains the whole model."""
    alpha: int = Field(default=16, ge=1)
    """What an adapter adds is scaled by ``alpha / rank``."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which modules get adapters: ``all-linear`` (all but the output layer) or names like ``["q_proj", "v_proj"]``."""


class EngineConfig(Section):
    """Fields of ``[trainer]`` that say how a step is computed."""

    engine: Literal["torch", "deepspeed"] = "torch"
    """``torch``: one process. ``deepspeed``: ``ranks`` processes on this machine, over gloo on CPUs and NCCL on GPUs;
    needs ``pip install 'stream-rft[deepspeed]'``."""
    ranks: int = Field(default=1, ge=1, le=64)
    """Data-parallel processes of ``deepspeed``, each with ``threads`` CPU threads or a GPU of its own."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ``deepspeed`` splits among the ranks (ZeRO, arXiv:1910.02054): 1 the optimiser's state, 2 gradients too,
    3 weights too."""
    rank_timeout_s: float = Field(default=600.0, gt=0)
    """A rank that does not take part in a step for so long has failed, and the trainer with it."""
    packing: Literal["auto", "on", "off"] = "auto"
    """``on``: sequences of a micro-batch follow each other in one row, each attending to itself only, and nothing is
    padded. ``off``: a row each, padded to the longest. ``auto``: packed where padding would cost more."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    compile: bool = False
    """torch.compile the model, with shapes that may vary. Compiling takes a minute or more at each start; not with
    ``packing = "on"`` or ``deepspeed``."""
    lora: LoraConfig = LoraConfig()
    """Train low-rank adapters only; needs ``pip install 'stream-rft[lora]'``. Weight versions are published merged, or
    as they are with ``weights.content = "adapters"``."""
    redo_tolerance: float = Field(default=0.0, ge=0)
    """How far, at most, redone steps may lead from the weights that were announced, as the largest difference of one
    weight. 0: not at all, each redone step must give the recorded bits. A resume with another number of ranks or
    another engine or machine needs more than 0, such as 1e-3, unless the checkpoint is of the last step."""

    @model_validator(mode="after")
    def _engine_can(self) -> EngineConfig:
        if self.engine == "torch" and self.ranks > 1:
            raise ValueError(f"ranks = {self.ranks} needs engine = 'deepspeed': 'torch' is one process")
        if self.compile and (self.packing == "on" or self.engine == "deepspeed"):
            other = "packing = 'on'" if self.packing == "on" else "engine = 'deepspeed'"
            raise ValueError(f"compile = true does not go with {other}: unset one of them")
        return self


def engine_fields(trainer: EngineConfig) -> dict[str, Any]:
    """The fields of :class:`EngineConfig` that the bits of a step hang on, as plain values."""
    names = ("engine", "ranks", "zero_stage", "packing", "gradient_checkpointing", "compile", "lora")
    return {name: value for name, value in trainer.model_dump(mode="json").items() if name in names}
