"""The model that an engine trains: loaded, with adapters, packing, checkpointing of activations and compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rft.config import Config
from rft.errors import PolicyError
from rft.policy.loading import load_model
from rft.training.batch import MicroBatch, StepBatch, waste
from rft.training.engines import adapters
from rft.training.engines.partitions import shape_of
from rft.training.packing import AUTO_WASTE, packed_arguments, prepare_packing
from rft.weights.adapters import base_digest, holds_adapters
from rft.weights.checkpoint import WEIGHTS_FILE
from rft.weights.file import Layout, WeightsFile, weights_file

AMP_DTYPES = {"bfloat16": torch.bfloat16}


class TrainedModel:
    """A causal language model in float32, its reference, and how both are run over a micro-batch."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load the weights in ``folder``: a model, or with LoRA a checkpoint of adapters or the model beneath them.

        Raises PolicyError when they cannot be loaded or the model cannot do what the configuration asks for.
        """
        self._config = trainer = config.trainer
        self._lora = trainer.lora
        self._base_folder = config.policy.model
        self.sends_adapters = config.weights.content == "adapters"
        """Whether versions are adapters alone."""
        self.module: Any = load_model(Path(config.policy.model) if self.adapted else folder, device=trainer.device)
        self.device: torch.device = self.module.device
        self.vocabulary: int = self.module.get_input_embeddings().num_embeddings
        self.tied = frozenset(getattr(self.module, "all_tied_weights_keys", None) or {})
        self.base_digest = serialize(self.module.state_dict(), self.tied).sha256 if self.adapted else None
        self._packs = trainer.packing != "off" and not trainer.compile and prepare_packing(self.module)
        if trainer.packing == "on" and not self._packs:
            raise PolicyError(
                f"trainer.packing = 'on', but {type(self.module).__name__} does not keep the sequences of a packed row "
                "apart; use 'auto' or 'off'"
            )
        if self.adapted:
            self.module = adapters.attach(self.module, self._lora)
            if folder.absolute() != Path(config.policy.model).absolute():
                adapters.load_adapter(self.module, folder)
        self._base_files = self._beneath() if self.sends_adapters else ""
        if trainer.gradient_checkpointing:
            _checkpoint_activations(self.module)
        if trainer.compile:
            self.module.compile(dynamic=True)
        self._reference: Any = None
        self._teacher: Any = None
        self._autocast = AMP_DTYPES.get(trainer.dtype)
        self._lowered = False

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained, and not the model."""
        return self._lora.rank > 0

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters that have a gradient."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def set_reference(self, folder: Path) -> str:
        """The model that reference logits come from; its sha256. With adapters, the base model is the reference."""
        if self.base_digest is not None:
            return self.base_digest
        self._reference = self._frozen(folder)
        return serialize(self._reference.state_dict(), self.tied).sha256

    def set_teacher(self, folder: Path) -> None:
        """Load the model that teacher logits come from. Raises PolicyError when it knows fewer tokens."""
        self._teacher = self._frozen(folder)
        vocabulary = self._teacher.get_input_embeddings().num_embeddings
        if vocabulary < self.vocabulary:
            raise PolicyError(
                f"algorithm.teacher ({folder}) knows {vocabulary} tokens, the policy {self.vocabulary}: a teacher must "
                "have the policy's tokenizer"
            )

    def lower(self) -> None:
        """The model is wrapped by what computes in bfloat16 of its own accord."""
        self._lowered = True

    def packs(self, batch: StepBatch, units: list[list[int]]) -> bool:
        """Whether to pack this step. Decided by lengths alone, so that a step done again is cut the same."""
        if not self._packs or not units:
            return False
        return self._config.packing == "on" or waste(batch, self._config.micro_batch_tokens, units) > AUTO_WASTE

    def logits(self, batch: MicroBatch, module: Any = None) -> Tensor:
        """float32 [N, V] at the places that predict a token to learn from; ``module`` wraps the model."""
        return self._run(self.module if module is None else module, batch, lowered=self._lowered)

    @torch.no_grad()
    def reference_logits(self, batch: MicroBatch, module: Any = None) -> Tensor:
        """The same of the reference."""
        if self.adapted:
            with self.module.disable_adapter():
                return self.logits(batch, module)
        if self._reference is None:
            raise RuntimeError("the objective needs set_reference() first")
        return self._run(self._reference, batch)

    @torch.no_grad()
    def teacher_logits(self, batch: MicroBatch) -> Tensor:
        """The same of the teacher."""
        if self._teacher is None:
            raise RuntimeError("the objective needs set_teacher() first")
        return self._run(self._teacher, batch)

    def layout(self) -> Layout:
        """Of the file to publish, when the model is trained whole. ZeRO may have split it."""
        shapes = {name: shape_of(parameter) for name, parameter in self.module.named_parameters()}
        return {
            # Where DeepSpeed computes in bfloat16, it has the trained weights in float32.
            name: (torch.float32 if tensor.is_floating_point() else tensor.dtype, shapes.get(name, tensor.shape))
            for name, tensor in self.module.state_dict().items()
            if name not in self.tied
        }

    def serialized(self, tensors: Mapping[str, Tensor]) -> WeightsFile:
        """``tensors`` of the module's state, whole and in float32, as the file to publish."""
        if self.sends_adapters:
            return adapters.adapter_version(tensors, self.module, self._base_files)
        if self.adapted:
            tensors = adapters.merged(tensors, self._lora.alpha / self._lora.rank)
        return serialize(tensors, self.tied)

    def checkpoint_files(self, tensors: Mapping[str, Tensor]) -> dict[str, bytes | memoryview]:
        """The same as a checkpoint keeps them."""
        if self.adapted:
            return {**adapters.adapter_files(tensors, self.module, self._base_folder)}
        return {WEIGHTS_FILE: self.serialized(tensors).data}

    def _beneath(self) -> str:
        if holds_adapters(self._base_folder):
            raise PolicyError(
                f'weights.content = "adapters" needs a model beneath, and policy.model ({self._base_folder}) holds '
                "adapters itself: merge them into a model first"
            )
        return base_digest(self._base_folder)

    def _frozen(self, folder: Path) -> Any:
        """Another model, that is only asked. If it does not keep packed sequences apart, nothing is packed."""
        model = load_model(folder, device=self._config.device).requires_grad_(False)
        self._packs = self._packs and prepare_packing(model)
        return model

    def _run(self, module: Any, batch: MicroBatch, *, lowered: bool = False) -> Tensor:
        arguments = packed_arguments(batch.packed, self.device) if batch.packed else {}
        autocast = (
            torch.autocast(self.device.type, dtype=self._autocast)
            if self._autocast and not lowered
            else contextlib.nullcontext()
        )
        with autocast:
            output = module(input_ids=batch.inputs, use_cache=False, logits_to_keep=batch.columns, **arguments)
        return output.logits.flatten(0, 1).index_select(0, batch.picks).float()


def serialize(tensors: Mapping[str, Tensor], tied: frozenset[str]) -> WeightsFile:
    """A model's state, tied parameters once, as a safetensors file; the same weights give the same bytes."""
    return weights_file({name: tensor for name, tensor in tensors.items() if name not in tied})


def prepare_torch(threads: int, seed: int) -> None:
    """Make this process's torch repeatable: a fixed thread count, deterministic algorithms, seeded numbers."""
    torch.set_num_threads(threads)
    # On a GPU a few operations have no deterministic twin: there we warn, and the promise is for CPUs.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Only helps to find reads of uninitialised memory, and costs 2 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by its class
    torch.manual_seed(seed)


def _checkpoint_activations(model: Any) -> None:
    # Only in training mode do models heed it, and then they drop out too: each probability is set to 0.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
