"""Loads models and tokenizers from folders in Hugging Face layout, never from the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from rft.errors import PolicyError, first_line
from rft.lora.adapter import base_model_folder
from rft.lora.base_model import merged_weights
from rft.model_files.model_folder import holds_adapters, is_model_folder
from rft.model_files.tensors import copy_weights
from rft.policy.chat_template import ChatTemplate
from rft.policy.prompt_tokens import Tokenizer, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TokenizerMixin:
    """The part of a :class:`rft.policy.base.Policy` that needs only its tokenizer and its model's context."""

    _context: int

    def __init__(self, model: str, template_options: Mapping[str, Any]) -> None:
        """Load the tokenizer of ``model``. Raises PolicyError when there is none."""
        self._tokenizer = load_tokenizer(model)
        self._chat = ChatTemplate(self._tokenizer, template_options)
        # The samples of a group encode the same prompt one after the other, and a tokenizer's call costs over 0.1 ms.
        self._encode = lru_cache(maxsize=16)(lambda text: tuple(encode_prompt(self._tokenizer, text)))

    @property
    def chat(self) -> ChatTemplate:
        """The chat template of the tokenizer."""
        return self._chat

    @property
    def context(self) -> int:
        """The model's context: the most tokens of prompt and answer together."""
        return self._context

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, with the special tokens that the tokenizer adds to a text."""
        return list(self._encode(text))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True)


def resolve_device(device: str) -> torch.device:
    """Return the torch device; ``auto`` is the GPU if there is one.

    Raises PolicyError for a device that this machine lacks.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PolicyError(f"device = '{device}', but torch {torch.__version__} sees no GPU; use 'cpu' or 'auto'")
    return torch.device(device)


def load_model(path: Path | str, dtype: str = "float32", device: str = "auto") -> PreTrainedModel:
    """Return the causal language model in a folder, in evaluation mode.

    If the folder holds adapters, they are merged into their base model. Raises PolicyError if the folder is missing,
    incomplete or not a causal language model.
    """
    folder = _base_folder(path)
    target = resolve_device(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"cannot load the model in {folder}: {first_line(error)}") from error
    if holds_adapters(path):
        copy_weights(model, merged_weights(path))
    return model.to(target).eval()


def empty_model(path: Path | str) -> PreTrainedModel:
    """Return the model that a folder describes, without memory for its weights. Raises PolicyError."""
    folder = _base_folder(path)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PolicyError(f"cannot make the model that {folder} describes: {first_line(error)}") from error


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Return the tokenizer saved in a model's folder. Raises PolicyError if there is none."""
    folder = model_folder(path)
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(
            f"cannot load a tokenizer from {folder}: {first_line(error)}; "
            "save one there with tokenizer.save_pretrained(folder)"
        ) from error
    return tokenizer


def text_config(path: Path | str) -> PreTrainedConfig:
    """Return the configuration of the model in ``path``, or of its language part. Raises PolicyError."""
    folder = _base_folder(path)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"cannot read the configuration of the model in {folder}: {first_line(error)}") from error


def generation_config(path: Path | str) -> GenerationConfig:
    """Return the generation config of the model in ``path``, or what its config says if it has none.

    Raises PolicyError.
    """
    folder = _base_folder(path)
    try:
        if (folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"cannot read the configuration of the model in {folder}: {first_line(error)}") from error


def end_tokens(generation_config: GenerationConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end a sequence according to the generation config or the tokenizer."""
    configured = generation_config.eos_token_id
    ids = set(configured) if isinstance(configured, list) else {configured}
    return frozenset(int(token) for token in ids | {tokenizer.eos_token_id} if token is not None)


def _base_folder(path: Path | str) -> Path:
    """Return the model's folder, or that of the base model if ``path`` holds adapters. Raises PolicyError."""
    return base_model_folder(model_folder(path))


def model_folder(path: Path | str) -> Path:
    """Return ``path`` as a Path. Raises PolicyError if there is no such folder or it holds no model."""
    folder = Path(path)
    if not folder.is_dir():
        raise PolicyError(
            f"there is no model folder {folder.absolute()}: set policy.model to a folder with config.json, "
            "tokenizer and safetensors files (for the quickstart, `make quickstart` makes it)"
        )
    if not is_model_folder(folder):
        raise PolicyError(f"{folder.absolute()} holds no config.json, so it is not a model folder")
    return folder
