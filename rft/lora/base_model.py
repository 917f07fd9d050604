"""The base model that LoRA adapters change: checks adapters against it, and merges them into its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rft.errors import PolicyError
from rft.lora.adapter import Adapter, base_digest, base_model_folder, check_adapters, merge_adapters
from rft.model_files.model_folder import WEIGHTS_FILE, companion_files, write_folder
from rft.model_files.tensors import read_shapes, read_weights
from rft.model_files.weights_file import build_weights_file


class LoraBaseModel:
    """The model in a folder, or the base model of the adapters in it.

    Its weights are read from disk for each version: the operating system caches the files already, so keeping the
    tensors here too would hold them in memory twice.
    """

    def __init__(self, folder: Path | str) -> None:
        """Find the base model of ``folder``. Raises PolicyError if it does not exist."""
        self.folder = base_model_folder(folder)

    def check(self, shapes: Mapping[str, tuple[int, ...]], adapter: Adapter) -> None:
        """Raise PolicyError unless tensors of these ``shapes`` are adapters of exactly this model."""
        check_adapters(shapes, adapter, self._shapes)
        if adapter.base_sha256 not in ("", self._digest):
            raise PolicyError(
                f"these adapters were trained on another model than that in {self.folder.absolute()}: give trainer and "
                "explorers copies of the same files as policy.model"
            )

    def merge(self, adapters: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
        """Return the model's tensors with ``adapters`` merged in. Raises PolicyError unless they are of this model."""
        self.check({name: tuple(tensor.shape) for name, tensor in adapters.items()}, adapter)
        return merge_adapters(read_weights(self.folder), adapters, adapter.scale)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return read_shapes(self.folder)

    @cached_property
    def _digest(self) -> str:
        return base_digest(self.folder)


def merged_weights(folder: Path | str) -> dict[str, Tensor]:
    """Read all tensors of a model folder, with the adapters merged in if it holds adapters. Raises PolicyError."""
    adapter = Adapter.from_folder(folder)
    tensors = read_weights(folder)
    return tensors if adapter is None else LoraBaseModel(folder).merge(tensors, adapter)


def write_merged_model(folder: Path, target: Path) -> Path:
    """Merge the adapters in ``folder`` into their base model, and write that to ``target`` unless it exists.

    Returns ``target``.
    Raises PolicyError if the adapters do not fit, and WeightsError, naming the disk, if the model cannot be written.
    """
    if target.is_dir():
        return target
    weights = build_weights_file(merged_weights(folder), {torch.bfloat16: torch.float32, torch.float16: torch.float32})
    write_folder(target, {**companion_files(base_model_folder(folder)), WEIGHTS_FILE: weights.data}, "the merged model")
    return target
