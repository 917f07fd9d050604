"""LoRA (arXiv:2106.09685) by PEFT: adapters on linear layers, trained alone; published so or merged.

A layer's weight W [out, in] becomes W + alpha / rank · B A, with A [rank, in] and B [out, rank]; B starts at zero.
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
from rft.weights.adapters import ADAPTER_CONFIG, ADAPTER_FILE, PREFIX, Adapter, added
from rft.weights.file import WeightsFile, weights_file

_NAME = ".default."
_BASE, _DOWN, _UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


def attach(model: Any, lora: LoraConfig) -> Any:
    """``model`` with adapters, the only parameters that have a gradient. Their first values come from torch's seed.

    Raises PolicyError when PEFT is not installed or the modules are not there.
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
                f"{type(module.get_base_layer()).__name__}; adapters are for linear layers only"
            )
    return adapted.eval()


def load_adapter(model: nn.Module, folder: Path) -> bool:
    """Take over the adapter in ``folder``, if there is one. Raises PolicyError when it is of another model or rank."""
    file = folder / ADAPTER_FILE
    if not file.is_file():
        return False
    try:
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise PolicyError(f"cannot read the adapter {file}: {error}") from error
    own = {saved_name(name): parameter for name, parameter in adapter_parameters(model)}
    if set(own) != set(tensors) or any(own[name].shape != tensor.shape for name, tensor in tensors.items()):
        raise PolicyError(f"the adapter {file} is of another model, or of another trainer.lora.rank or target_modules")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return True


def adapter_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of all adapters."""
    return ((name, parameter) for name, parameter in model.named_parameters() if is_adapter(name))


def saved_name(name: str) -> str:
    """A parameter's name in PEFT's files."""
    return name.replace(_NAME, ".")


def adapter_files(tensors: Mapping[str, Tensor], model: Any, base: str) -> dict[str, bytes]:
    """The adapters among a model's ``tensors`` as PEFT's two files; ``base`` is the folder of the model beneath."""
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = base
    with TemporaryDirectory() as folder:
        settings.save_pretrained(folder)
        described = (Path(folder) / ADAPTER_CONFIG).read_bytes()
    adapters = {name: tensor.contiguous() for name, tensor in _saved(tensors).items()}
    return {ADAPTER_FILE: save(adapters, {"format": "pt"}), ADAPTER_CONFIG: described}


def adapter_version(tensors: Mapping[str, Tensor], model: Any, base_sha256: str) -> WeightsFile:
    """The adapters among a model's ``tensors`` as a weight version; equal adapters give equal bytes."""
    settings = model.peft_config["default"]
    adapter = Adapter(settings.r, settings.lora_alpha, tuple(sorted(settings.target_modules)), base_sha256)
    return weights_file(_saved(tensors), metadata=adapter.metadata())


def merged(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A model's ``tensors`` under the names that they have without adapters, these added in.

    The weights beneath are not touched, so merging again and again adds no rounding.
    """
    result = {}
    for name, tensor in tensors.items():
        if is_adapter(name):
            continue
        if name.endswith(_BASE):
            stem = name.removesuffix(_BASE)
            tensor = added(tensor, tensors[stem + _DOWN], tensors[stem + _UP], scale)
        result[plain_name(name)] = tensor
    return result


def plain_name(name: str) -> str:
    """The name that a parameter has in the model without adapters."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is part of an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def _saved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {saved_name(name): tensor for name, tensor in tensors.items() if is_adapter(name)}
