"""Estimates the memory that a step needs, from the model's shape and the configuration. Pure.

A rank holds weights, gradients, the optimizer's two moments and, with DeepSpeed, a float32 copy of what is trained.
Each is divided as ZeRO divides it (arXiv:1910.02054, section 5). Added are the reference model, and what the forward
pass of ``trainer.micro_batch_tokens`` tokens keeps for the backward pass. Activations are those of a transformer with
gated MLPs and attention that builds no matrix of tokens by tokens. ``benchmarks/trainer.py`` prints estimates next to
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rft.config import TrainerConfig

FLOAT32, BFLOAT16 = 4, 2
"""Bytes of one number."""
_HIDDEN_COPIES, _MLP_COPIES, _LOGIT_COPIES = 14, 5, 5
"""Tensors kept for the backward pass, in units of one token's hidden states, MLP states and logits (measured)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model that its memory depends on."""

    parameters: int
    linear: tuple[tuple[int, int], ...]
    """(in, out) of each layer that ``trainer.lora.target_modules`` selects; empty without LoRA."""
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that each rank needs."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    publishing: int
    """On rank 0 only and in main memory: the weights as the file that is published."""

    @property
    def per_rank(self) -> int:
        """Bytes that each rank needs on its device."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.activations


def estimate_memory(shape: ModelShape, config: TrainerConfig, *, reference: bool) -> MemoryEstimate:
    """Estimate the memory of a step with ``config``. ``reference``: the algorithm compares with a reference model."""
    deepspeed = config.engine == "deepspeed"
    ranks = config.ranks if deepspeed else 1
    stage = config.zero_stage if deepspeed else 0
    low_precision = deepspeed and config.dtype == "bfloat16"
    adapters = config.lora.rank * sum(inputs + outputs for inputs, outputs in shape.linear)
    all_weights = shape.parameters + adapters
    trained = adapters or shape.parameters
    size = BFLOAT16 if low_precision else FLOAT32
    # DeepSpeed computes in float32 on a flat copy of what it trains. Each rank has its part of the copy.
    copy = FLOAT32 * trained if deepspeed else 0
    return MemoryEstimate(
        weights=size * all_weights // (ranks if stage == 3 else 1),
        gradients=size * trained // (ranks if stage >= 2 else 1),
        optimizer=(2 * FLOAT32 * trained + copy) // ranks,
        reference=FLOAT32 * shape.parameters if reference and not adapters else 0,
        activations=_activations(shape, config),
        publishing=2 * FLOAT32 * shape.parameters,
    )


def affordable_tokens(shape: ModelShape, config: TrainerConfig, free: int) -> int:
    """Return the tokens of a micro-batch whose activations fit into ``free`` bytes; 0 if none do."""
    return max(free, 0) * config.micro_batch_tokens // max(_activations(shape, config), 1)


def adapted_layers(model: Any, targets: str | list[str]) -> tuple[tuple[int, int], ...]:
    """Return (in, out) of the linear layers of ``model`` that get adapters."""
    output = model.get_output_embeddings()
    return tuple(
        (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and module is not output
        if targets == "all-linear" or any(name == target or name.endswith(f".{target}") for target in targets)
    )


def model_shape(model: Any, config: TrainerConfig) -> ModelShape:
    """Return the shape of a transformers model. Its weights may be on any device, ``meta`` included."""
    settings = model.config
    hidden = settings.hidden_size
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=adapted_layers(model, config.lora.target_modules) if config.lora.rank else (),
        layers=settings.num_hidden_layers,
        hidden=hidden,
        intermediate=getattr(settings, "intermediate_size", None) or 4 * hidden,
        vocabulary=settings.vocab_size,
    )


def _activations(shape: ModelShape, config: TrainerConfig) -> int:
    # Autocast keeps the factors of matrix products in bfloat16, and norms and logits in float32.
    size = FLOAT32 if config.dtype == "float32" else 3
    layer = size * (_HIDDEN_COPIES * shape.hidden + _MLP_COPIES * shape.intermediate)
    layers = FLOAT32 * shape.hidden * shape.layers + layer if config.gradient_checkpointing else layer * shape.layers
    return config.micro_batch_tokens * (layers + FLOAT32 * _LOGIT_COPIES * shape.vocabulary)
