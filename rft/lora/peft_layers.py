"""Adds LoRA adapters (arXiv:2106.09685) to linear layers by PEFT, and saves them alone or merged.

Only adapters are trained. A layer's weight W [out, in] becomes W + alpha / rank · B A, with A [rank, in] and
B [out, rank]; B starts at zero.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rft.config import LoraConfig
from rft.errors import PolicyError
from rft.lora.adapter import PREFIX, Adapter, add_low_rank
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE
from rft.model_files.weights_file import WeightsFile, build_weights_file

_NAME = ".default."
_BASE, _DOWN, _UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: Any, lora: LoraConfig) -> Any:
    """Return ``model`` with adapters, the only parameters that have a gradient. torch's seed decides their values.

    Raises PolicyError when PEFT is not installed or the model has no such modules.
    """
    if importlib.util.find_spec("peft") is None:
        raise PolicyError("trainer.lora needs PEFT: pip install 'stream-rft[lora]'")
    import peft

    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        raise PolicyError(f"trainer.lora.target_modules = {lora.target_modules!r}: {error}") from error
    for name, module in adapted.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and not isinstance(module.get_base_layer(), nn.Linear):
            raise PolicyError(
                f"trainer.lora.target_modules: {name.removeprefix(PREFIX)} is a "
                f"{type(module.get_base_layer()).__name__}, not a linear layer. Name linear layers only"
            )
    return adapted.eval()


def load_adapters(model: nn.Module, folder: Path) -> bool:
    """Load the adapters in ``folder`` and return True, or False if there are none.

    Raises PolicyError when they belong to another model or have another rank.
    """
    file = folder / ADAPTER_FILE
    if not file.is_file():
        return False
    try:
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise PolicyError(f"cannot read the adapters in {file}: {error}") from error
    own = {name_in_file(name): parameter for name, parameter in adapter_parameters(model)}
    if set(own) != set(tensors) or any(own[name].shape != tensor.shape for name, tensor in tensors.items()):
        raise PolicyError(
            f"the adapters in {file} belong to another model, or to another trainer.lora.rank or target_modules"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return True


def adapter_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return the names and parameters of all adapters."""
    return ((name, parameter) for name, parameter in model.named_parameters() if is_adapter(name))


def name_in_file(name: str) -> str:
    """Return a parameter's name in PEFT's files."""
    return name.replace(_NAME, ".")


def peft_files(tensors: Mapping[str, Tensor], model: Any, base: str) -> dict[str, bytes]:
    """Return the adapters among a model's ``tensors`` as PEFT's two files; ``base`` is the folder of the base model."""
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = base
    with TemporaryDirectory() as folder:
        settings.save_pretrained(folder)
        config = (Path(folder) / ADAPTER_CONFIG).read_bytes()
    adapters = {name: tensor.contiguous() for name, tensor in _adapter_tensors(tensors).items()}
    return {ADAPTER_FILE: save(adapters, {"format": "pt"}), ADAPTER_CONFIG: config}


def adapter_weights_file(tensors: Mapping[str, Tensor], model: Any, base_sha256: str) -> WeightsFile:
    """Return the adapters among a model's ``tensors`` as a weight version. Equal adapters give equal bytes."""
    settings = model.peft_config["default"]
    adapter = Adapter(settings.r, settings.lora_alpha, tuple(sorted(settings.target_modules)), base_sha256)
    return build_weights_file(_adapter_tensors(tensors), metadata=adapter.metadata())


def merge(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return a model's ``tensors`` with the adapters merged, under the names that they have without adapters.

    The base weights are not changed, so merging repeatedly adds no rounding.
    """
    result = {}
    for name, tensor in tensors.items():
        if is_adapter(name):
            continue
        if name.endswith(_BASE):
            stem = name.removesuffix(_BASE)
            tensor = add_low_rank(tensor, tensors[stem + _DOWN], tensors[stem + _UP], scale)
        result[name_in_base_model(name)] = tensor
    return result


def name_in_base_model(name: str) -> str:
    """Return the name that a parameter has in the model without adapters."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Return whether a parameter of that name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def _adapter_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name_in_file(name): tensor for name, tensor in tensors.items() if is_adapter(name)}
