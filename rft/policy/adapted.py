"""A policy's model beneath the adapters that come as weight versions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rft.errors import PolicyError
from rft.policy.tensors import layout_of, read_weights
from rft.weights.adapters import Adapter, applied, base_digest, base_model_folder, check_adapters
from rft.weights.checkpoint import WEIGHTS_FILE, companion_files, write_folder
from rft.weights.file import weights_file


class AdapterBase:
    """The model in a folder, or the one beneath the adapters there. It is read anew for each version: what is read
    often, the system keeps in memory, and here it would be there twice."""

    def __init__(self, folder: Path | str) -> None:
        """Raises PolicyError when the model beneath is not there."""
        self.folder = base_model_folder(folder)

    def check(self, shapes: Mapping[str, tuple[int, ...]], adapter: Adapter) -> None:
        """Raise PolicyError unless tensors of these ``shapes`` are adapters of this very model."""
        check_adapters(shapes, adapter, self._layout)
        if adapter.base_sha256 not in ("", self._digest):
            raise PolicyError(
                f"these adapters were trained on another model than that in {self.folder.absolute()}: give trainer and "
                "explorers copies of the same files as policy.model"
            )

    def whole(self, adapters: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
        """All tensors of the model with ``adapters`` added in. Raises PolicyError unless they are of this model."""
        self.check({name: tuple(tensor.shape) for name, tensor in adapters.items()}, adapter)
        return applied(read_weights(self.folder), adapters, adapter.scale)

    @cached_property
    def _layout(self) -> dict[str, tuple[int, ...]]:
        return layout_of(self.folder)

    @cached_property
    def _digest(self) -> str:
        return base_digest(self.folder)


def whole_weights(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a model folder, adapters added in if it holds adapters. Raises PolicyError."""
    adapter = Adapter.of_folder(folder)
    tensors = read_weights(folder)
    return tensors if adapter is None else AdapterBase(folder).whole(tensors, adapter)


def write_whole(folder: Path, target: Path) -> Path:
    """Write the whole model of the adapters in ``folder`` to ``target``, unless it is there, and return that.

    Raises PolicyError, and WeightsError, naming the disk, when it cannot be written.
    """
    if target.is_dir():
        return target
    weights = weights_file(whole_weights(folder), {torch.bfloat16: torch.float32, torch.float16: torch.float32})
    write_folder(target, {**companion_files(base_model_folder(folder)), WEIGHTS_FILE: weights.data}, "the merged model")
    return target
