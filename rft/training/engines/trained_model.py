"""Loads the model that an engine trains and runs it: adapters, packing, activation checkpointing and compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rft.config import Config
from rft.errors import PolicyError
from rft.lora import peft_layers
from rft.lora.adapter import base_digest
from rft.model_files.model_folder import WEIGHTS_FILE, holds_adapters
from rft.model_files.weights_file import Layout, WeightsFile, build_weights_file
from rft.policy.loading import load_model
from rft.training.batch import MicroBatch, StepBatch
from rft.training.engines.zero_partitions import whole_shape
from rft.training.micro_batches import padding_ratio
from rft.training.packing import AUTO_PADDING_RATIO, enable_packing, packed_arguments

AUTOCAST_DTYPES = {"bfloat16": torch.bfloat16}


class TrainedModel:
    """A causal language model in float32, with its reference and teacher."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load the weights in ``folder``: a model, or with LoRA a checkpoint of adapters or their base model.

        Raises PolicyError if they cannot be loaded, or the model does not support what the configuration asks for.
        """
        self._config = trainer = config.trainer
        self._lora = trainer.lora
        self._base_folder = config.policy.model
        self.sends_adapters = config.weights.content == "adapters"
        """True if weight versions hold the adapters alone."""
        self.module: Any = load_model(Path(config.policy.model) if self.adapted else folder, device=trainer.device)
        self.device: torch.device = self.module.device
        self.vocabulary: int = self.module.get_input_embeddings().num_embeddings
        self.tied = frozenset(getattr(self.module, "all_tied_weights_keys", None) or {})
        self.base_digest = serialize(self.module.state_dict(), self.tied).sha256 if self.adapted else None
        self._can_pack = trainer.packing != "off" and not trainer.compile and enable_packing(self.module)
        if trainer.packing == "on" and not self._can_pack:
            raise PolicyError(
                f"trainer.packing = 'on', but {type(self.module).__name__} does not keep the sequences of a packed row "
                "apart. Set 'auto' or 'off'"
            )
        if self.adapted:
            self.module = peft_layers.add_adapters(self.module, self._lora)
            if folder.absolute() != Path(config.policy.model).absolute():
                peft_layers.load_adapters(self.module, folder)
        self._base_sha256 = self._base_model_digest() if self.sends_adapters else ""
        if trainer.gradient_checkpointing:
            _checkpoint_activations(self.module)
        if trainer.compile:
            self.module.compile(dynamic=True)
        self._reference: Any = None
        self._teacher: Any = None
        self._autocast = AUTOCAST_DTYPES.get(trainer.dtype)
        self._autocast_disabled = False

    @property
    def adapted(self) -> bool:
        """True if adapters are trained instead of the whole model."""
        return self._lora.rank > 0

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters that have a gradient."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def set_reference(self, folder: Path) -> str:
        """Load the model in ``folder`` as reference. Returns the sha256 of its weights.

        With adapters the base model is the reference, and nothing is loaded.
        """
        if self.base_digest is not None:
            return self.base_digest
        self._reference = None  # frees an earlier one before the next needs its place
        self._reference = self._load_frozen(folder)
        return serialize(self._reference.state_dict(), self.tied).sha256

    def set_teacher(self, folder: Path) -> None:
        """Load the model in ``folder`` as teacher. Raises PolicyError if it knows fewer tokens than the policy."""
        self._teacher = self._load_frozen(folder)
        vocabulary = self._teacher.get_input_embeddings().num_embeddings
        if vocabulary < self.vocabulary:
            raise PolicyError(
                f"algorithm.teacher ({folder}) knows {vocabulary} tokens, but the policy knows {self.vocabulary}. "
                "Choose a teacher with the policy's tokenizer"
            )

    def disable_autocast(self) -> None:
        """Run the model without autocast from now on, because a wrapper computes in bfloat16 itself."""
        self._autocast_disabled = True

    def should_pack(self, batch: StepBatch, units: list[list[int]]) -> bool:
        """Return whether to pack these sequences. It depends on lengths alone, so a redone step is split the same."""
        if not self._can_pack or not units:
            return False
        return (
            self._config.packing == "on"
            or padding_ratio(batch, self._config.micro_batch_tokens, units) > AUTO_PADDING_RATIO
        )

    def logits(self, batch: MicroBatch, module: Any = None) -> Tensor:
        """Return the logits that predict the action tokens, float32 [N, V].

        Args:
            module: a wrapper of the model to run instead.
        """
        return self._run(self.module if module is None else module, batch, autocast=not self._autocast_disabled)

    @torch.no_grad()
    def reference_logits(self, batch: MicroBatch, module: Any = None) -> Tensor:
        """Return the reference's logits, as :meth:`logits`. Raises RuntimeError without a reference."""
        if self.adapted:
            with self.module.disable_adapter():
                return self.logits(batch, module)
        if self._reference is None:
            raise RuntimeError("the objective needs set_reference() first")
        return self._run(self._reference, batch)

    @torch.no_grad()
    def teacher_logits(self, batch: MicroBatch) -> Tensor:
        """Return the teacher's logits, as :meth:`logits`. Raises RuntimeError without a teacher."""
        if self._teacher is None:
            raise RuntimeError("the objective needs set_teacher() first")
        return self._run(self._teacher, batch)

    def layout(self) -> Layout:
        """Return the layout of the file to publish if the whole model is trained. ZeRO may have split parameters."""
        shapes = {name: whole_shape(parameter) for name, parameter in self.module.named_parameters()}
        return {
            # If DeepSpeed computes in bfloat16, it holds the trained weights in float32 too, and these are published.
            name: (torch.float32 if tensor.is_floating_point() else tensor.dtype, shapes.get(name, tensor.shape))
            for name, tensor in self.module.state_dict().items()
            if name not in self.tied
        }

    def serialized(self, tensors: Mapping[str, Tensor]) -> WeightsFile:
        """Return the file to publish. ``tensors`` is the module's state, whole and in float32."""
        if self.sends_adapters:
            return peft_layers.adapter_weights_file(tensors, self.module, self._base_sha256)
        if self.adapted:
            tensors = peft_layers.merge(tensors, self._lora.alpha / self._lora.rank)
        return serialize(tensors, self.tied)

    def checkpoint_files(self, tensors: Mapping[str, Tensor]) -> dict[str, bytes | memoryview]:
        """Return the files that a checkpoint keeps, by name; ``tensors`` as in :meth:`serialized`."""
        if self.adapted:
            return {**peft_layers.peft_files(tensors, self.module, self._base_folder)}
        return {WEIGHTS_FILE: self.serialized(tensors).data}

    def _base_model_digest(self) -> str:
        if holds_adapters(self._base_folder):
            raise PolicyError(
                f'weights.content = "adapters" needs a whole base model, but policy.model ({self._base_folder}) holds '
                "adapters. Merge them into a model first"
            )
        return base_digest(self._base_folder)

    def _load_frozen(self, folder: Path) -> Any:
        """Load a model that is not trained. If it cannot run packed rows, nothing is packed."""
        model = load_model(folder, device=self._config.device).requires_grad_(False)
        self._can_pack = self._can_pack and enable_packing(model)
        return model

    def _run(self, module: Any, batch: MicroBatch, *, autocast: bool = True) -> Tensor:
        arguments = packed_arguments(batch.packed_lengths, self.device) if batch.packed_lengths else {}
        precision = (
            torch.autocast(self.device.type, dtype=self._autocast)
            if self._autocast and autocast
            else contextlib.nullcontext()
        )
        with precision:
            output = module(input_ids=batch.inputs, use_cache=False, logits_to_keep=batch.columns, **arguments)
        return output.logits.flatten(0, 1).index_select(0, batch.logit_indices).float()


def serialize(tensors: Mapping[str, Tensor], tied: frozenset[str]) -> WeightsFile:
    """Return a model's state as a safetensors file, tied parameters once. The same weights give the same bytes."""
    return build_weights_file({name: tensor for name, tensor in tensors.items() if name not in tied})


def prepare_torch(threads: int, seed: int) -> None:
    """Make torch repeatable in this process: thread count, deterministic algorithms, seed."""
    torch.set_num_threads(threads)
    # On a GPU a few operations have no deterministic version. They only warn there; the promise is for CPUs.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Only helps to find reads of uninitialized memory, and costs 2 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by its class
    torch.manual_seed(seed)


def _checkpoint_activations(model: Any) -> None:
    # Models checkpoint activations in training mode only. Dropout is active in that mode too, so it is set to 0.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
