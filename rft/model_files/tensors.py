"""Reads tensors from folders in Hugging Face layout, and copies them into models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from rft.errors import PolicyError, first_line
from rft.model_files.model_folder import safetensors_files


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """Read all tensors of the folder's safetensors files, onto the CPU. Raises PolicyError if there are none."""
    tensors: dict[str, torch.Tensor] = {}
    for file in _safetensors_files(path):
        with _read_errors(file), safe_open(file, framework="pt") as reader:
            tensors.update({name: reader.get_tensor(name) for name in reader.keys()})  # noqa: SIM118 (no dict)
    return tensors


def read_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Read name and shape of each tensor in the folder's safetensors files, without reading the tensors.

    Raises PolicyError if there are none to read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _safetensors_files(path):
        with _read_errors(file), safe_open(file, framework="pt") as reader:
            shapes.update({name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()})  # noqa: SIM118
    return shapes


def check_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Raise PolicyError unless ``tensors`` are weights of exactly this architecture."""
    present = model.state_dict()
    unknown = sorted(set(tensors) - set(present))
    if unknown:
        raise PolicyError(f"weights of another model: unknown tensor {unknown[0]} ({len(unknown)} in all)")
    given = {present[name].data_ptr() for name in tensors}
    missing = sorted(name for name, tensor in present.items() if tensor.data_ptr() not in given)
    if missing:
        raise PolicyError(f"incomplete weights: {missing[0]} is missing ({len(missing)} in all)")
    for name, tensor in tensors.items():
        if tensor.shape != present[name].shape:
            raise PolicyError(
                f"weights of another model: {name} has shape {tuple(tensor.shape)}, not {tuple(present[name].shape)}"
            )


def copy_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Overwrite the model's parameters in place. ``tensors`` must have passed ``check_weights``."""
    present = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            present[name].copy_(tensor)


def _safetensors_files(path: Path | str) -> list[Path]:
    files = safetensors_files(path)
    if not files:
        raise PolicyError(f"{path} holds no .safetensors file")
    return files


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """Raise PolicyError with the file's name in place of the reader's errors."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise PolicyError(f"cannot read the weights in {file}: {first_line(error)}") from error
