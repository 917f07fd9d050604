"""Models, tokenizers and weights from folders in Hugging Face layout, never from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from rft.errors import PolicyError

logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that we use."""

    eos_token_id: int | None
    pad_token_id: int | None

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


def resolve_device(device: str) -> torch.device:
    """``auto`` is the GPU when there is one. Raises PolicyError for a device that this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PolicyError(f"device = '{device}', but torch {torch.__version__} sees no GPU; use 'cpu' or 'auto'")
    return torch.device(device)


def load_model(path: Path | str, dtype: str = "float32", device: str = "auto") -> Any:
    """A causal language model in evaluation mode.

    Raises PolicyError when the folder is missing, incomplete or not a causal language model.
    """
    folder = model_folder(path)
    target = resolve_device(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"cannot load the model in {folder}: {first_line(error)}") from error
    return model.to(target).eval()


def empty_model(path: Path | str) -> Any:
    """The model that a folder describes, without memory for its weights. Raises PolicyError."""
    folder = model_folder(path)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PolicyError(f"cannot make the model that {folder} describes: {first_line(error)}") from error


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer saved beside a model. Raises PolicyError when there is none."""
    folder = model_folder(path)
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(
            f"cannot load a tokenizer from {folder}: {first_line(error)}; "
            "save one there with tokenizer.save_pretrained(folder)"
        ) from error
    return tokenizer


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """All tensors of the folder's safetensors files, on the CPU. Raises PolicyError if there are none to read."""
    files = sorted(Path(path).glob("*.safetensors"))
    if not files:
        raise PolicyError(f"{path} holds no .safetensors file")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as reader:
                tensors.update({name: reader.get_tensor(name) for name in reader.keys()})  # noqa: SIM118 (no dict)
        except (OSError, SafetensorError) as error:
            raise PolicyError(f"cannot read the weights in {file}: {first_line(error)}") from error
    return tensors


def check_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Raise PolicyError unless ``tensors`` are weights of this very architecture."""
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


def layout_of(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in the folder's safetensors files, without reading the tensors.

    Raises PolicyError if there are none to read.
    """
    files = sorted(Path(path).glob("*.safetensors"))
    if not files:
        raise PolicyError(f"{path} holds no .safetensors file")
    layout: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as reader:
                layout.update({name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise PolicyError(f"cannot read the weights in {file}: {first_line(error)}") from error
    return layout


def text_config(path: Path | str) -> Any:
    """The shape of the model in ``path``, or of its language part. Raises PolicyError."""
    folder = model_folder(path)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"cannot read the configuration of the model in {folder}: {first_line(error)}") from error


def generation_config(path: Path | str) -> GenerationConfig:
    """How the model in ``path`` ends sequences, by its generation config or, if it has none, by its config.

    Raises PolicyError.
    """
    folder = model_folder(path)
    try:
        if (folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"cannot read the configuration of the model in {folder}: {first_line(error)}") from error


def end_tokens(generation_config: GenerationConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end a sequence, by the generation config and by the tokenizer."""
    named = generation_config.eos_token_id
    ids = set(named) if isinstance(named, list) else {named}
    return frozenset(int(token) for token in ids | {tokenizer.eos_token_id} if token is not None)


def model_folder(path: Path | str) -> Path:
    """The folder itself. Raises PolicyError when it is not there or holds no model."""
    folder = Path(path)
    if not folder.is_dir():
        raise PolicyError(
            f"there is no model folder {folder.absolute()}: set policy.model to a folder with config.json, "
            "tokenizer and safetensors files (for the quickstart, `make quickstart` makes it)"
        )
    if not (folder / "config.json").is_file():
        raise PolicyError(f"{folder.absolute()} holds no config.json, so it is not a model folder")
    return folder


def first_line(error: BaseException) -> str:
    """What an error says first; libraries add pages."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
