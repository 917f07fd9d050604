"""Models and tokenizers from folders in Hugging Face layout, never from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from rft.errors import PolicyError, first_line
from rft.policy.adapted import whole_weights
from rft.policy.tensors import copy_weights
from rft.weights.adapters import base_model_folder, holds_adapters, is_described

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
    """A causal language model in evaluation mode. If the folder holds adapters, the model beneath with these merged.

    Raises PolicyError when the folder is missing, incomplete or not a causal language model.
    """
    folder = _beneath(path)
    target = resolve_device(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"cannot load the model in {folder}: {first_line(error)}") from error
    if holds_adapters(path):
        copy_weights(model, whole_weights(path))
    return model.to(target).eval()


def empty_model(path: Path | str) -> Any:
    """The model that a folder describes, without memory for its weights. Raises PolicyError."""
    folder = _beneath(path)
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


def text_config(path: Path | str) -> Any:
    """The shape of the model in ``path``, or of its language part. Raises PolicyError."""
    folder = _beneath(path)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"cannot read the configuration of the model in {folder}: {first_line(error)}") from error


def generation_config(path: Path | str) -> GenerationConfig:
    """How the model in ``path`` ends sequences, by its generation config or, if it has none, by its config.

    Raises PolicyError.
    """
    folder = _beneath(path)
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


def _beneath(path: Path | str) -> Path:
    """The folder of the model, or of the one beneath the adapters in ``path``. Raises PolicyError."""
    return base_model_folder(model_folder(path))


def model_folder(path: Path | str) -> Path:
    """The folder itself. Raises PolicyError when it is not there or holds no model."""
    folder = Path(path)
    if not folder.is_dir():
        raise PolicyError(
            f"there is no model folder {folder.absolute()}: set policy.model to a folder with config.json, "
            "tokenizer and safetensors files (for the quickstart, `make quickstart` makes it)"
        )
    if not is_described(folder):
        raise PolicyError(f"{folder.absolute()} holds no config.json, so it is not a model folder")
    return folder
