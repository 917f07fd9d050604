"""What a step needs of memory, estimated from the model's shape and the configuration. Pure.

By rank: weights, gradients, the optimiser's two moments and, with DeepSpeed, its float32 copy of what is trained, each
divided by what ZeRO divides it by (arXiv:1910.02054, section 5); the reference model; and what the forward pass of
``trainer.micro_batch_tokens`` tokens leaves for the backward pass. Activations are of a transformer with gated MLPs and
attention that makes no matrix of tokens by tokens; ``benchmarks/trainer.py`` prints estimates beside what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rft.config import TrainerConfig

FLOAT32, BFLOAT16 = 4, 2
_HIDDEN_COPIES, _MLP_COPIES, _LOGIT_COPIES = 14, 5, 5
"""Tensors kept for the backward pass, in units of one token's hidden states, MLP states and logits (measured)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What memory hangs on."""

    parameters: int
    linear: tuple[tuple[int, int], ...]
    """(in, out) of each layer that ``trainer.lora.target_modules`` chooses."""
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, by rank."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    publishing: int
    """On rank 0 only and in main memory: the weights as the file that is published."""

    @property
    def rank(self) -> int:
        """What each rank needs on its device."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.activations


def estimate(shape: ModelShape, config: TrainerConfig, *, reference: bool) -> Estimate:
    """Of a step with ``config``; ``reference``: the algorithm compares with another model."""
    deepspeed = config.engine == "deepspeed"
    ranks = config.ranks if deepspeed else 1
    stage = config.zero_stage if deepspeed else 0
    low = deepspeed and config.dtype == "bfloat16"
    adapters = config.lora.rank * sum(wide + high for wide, high in shape.linear)
    all_weights = shape.parameters + adapters
    trained = adapters or shape.parameters
    size = BFLOAT16 if low else FLOAT32
    # DeepSpeed computes in float32 on a flat copy of what it trains, of which each rank has its part.
    copy = FLOAT32 * trained if deepspeed else 0
    return Estimate(
        weights=size * all_weights // (ranks if stage == 3 else 1),
        gradients=size * trained // (ranks if stage >= 2 else 1),
        optimizer=(2 * FLOAT32 * trained + copy) // ranks,
        reference=FLOAT32 * shape.parameters if reference and not adapters else 0,
        activations=_activations(shape, config),
        publishing=2 * FLOAT32 * shape.parameters,
    )


def affordable_tokens(shape: ModelShape, config: TrainerConfig, free: int) -> int:
    """Tokens of a micro-batch whose activations fit into ``free`` bytes; 0 when none do."""
    return max(free, 0) * config.micro_batch_tokens // max(_activations(shape, config), 1)


def adapted_layers(model: Any, targets: str | list[str]) -> tuple[tuple[int, int], ...]:
    """(in, out) of the linear layers of ``model`` that get adapters."""
    output = model.get_output_embeddings()
    return tuple(
        (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and module is not output
        if targets == "all-linear" or any(name == target or name.endswith(f".{target}") for target in targets)
    )


def shape_of(model: Any, config: TrainerConfig) -> ModelShape:
    """Of a transformers model, wherever its weights are."""
    described = model.config
    hidden = described.hidden_size
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=adapted_layers(model, config.lora.target_modules) if config.lora.rank else (),
        layers=described.num_hidden_layers,
        hidden=hidden,
        intermediate=getattr(described, "intermediate_size", None) or 4 * hidden,
        vocabulary=described.vocab_size,
    )


def _activations(shape: ModelShape, config: TrainerConfig) -> int:
    # Autocast keeps what matrices are multiplied with in bfloat16, and norms and logits in float32.
    size = FLOAT32 if config.dtype == "float32" else 3
    layer = size * (_HIDDEN_COPIES * shape.hidden + _MLP_COPIES * shape.intermediate)
    layers = FLOAT32 * shape.hidden * shape.layers + layer if config.gradient_checkpointing else layer * shape.layers
    return config.micro_batch_tokens * (layers + FLOAT32 * _LOGIT_COPIES * shape.vocabulary)
