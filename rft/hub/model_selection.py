"""Chooses the files of a model that are needed: configuration, tokenizer and safetensors, never pickles or code."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from rft.errors import HubError
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE, WEIGHTS_FILE

INDEX = f"{WEIGHTS_FILE}.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_COMPANIONS = re.compile(
    r"config\.json|generation_config\.json|adapter_config\.json|[^/]*token[^/]*\.json|[^/]*vocab[^/]*\.(json|txt)|"
    r"merges\.txt|special_tokens_map\.json|chat_template\.(jinja|json)|additional_chat_templates/[^/]+\.jinja|"
    r"[^/]+\.(model|tiktoken)"
)
_TOKENIZER = re.compile(r"tokenizer\.json|[^/]*vocab[^/]*\.(json|txt)|[^/]+\.(model|tiktoken)")


def companions(files: Collection[str]) -> list[str]:
    """Return the files of a repository that hold a model's configuration and its tokenizer."""
    return sorted(name for name in files if _COMPANIONS.fullmatch(name))


def weights(files: Collection[str]) -> list[str]:
    """Return the files of a repository that hold the model's weights as transformers would load them; [] if none do.

    Other safetensors files hold the same weights again, in another format or type.
    """
    if ADAPTER_CONFIG in files and ADAPTER_FILE in files:
        return [ADAPTER_FILE]
    if WEIGHTS_FILE in files:
        return [WEIGHTS_FILE]
    return sorted([INDEX, *filter(_SHARD.fullmatch, files)]) if INDEX in files else []


def check(files: Collection[str], name: str, *, with_weights: bool = True) -> None:
    """Raise HubError unless ``files`` are those of a language model that can be loaded. ``name`` is for the error."""
    if "config.json" not in files and ADAPTER_CONFIG not in files:
        raise HubError(
            f"{name} holds no config.json, so it is no model in Hugging Face layout. Set policy.model to one."
        )
    if with_weights and not weights(files):
        pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
        other = sorted(file for file in files if file.endswith((".gguf", ".safetensors")))
        found = f"; it has {(pickles or other)[0]}" if pickles or other else ""
        advice = (
            "Pickled weights are never loaded, because a pickle can run any code: take a repository that has "
            "safetensors, or convert it and set policy.model to the folder."
            if pickles
            else "Set policy.model to a repository in Hugging Face layout."
        )
        raise HubError(f"{name} holds no {WEIGHTS_FILE}{found}. {advice}")
    if not any(map(_TOKENIZER.fullmatch, files)):
        raise HubError(
            f"{name} holds no tokenizer. Download it, save the tokenizer of its base model there, and set policy.model "
            "to that folder."
        )


def is_complete(folder: Path, *, with_weights: bool) -> bool:
    """Return whether ``folder`` holds all files of a model that :func:`check` asks for, shards included."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if not ({"config.json", ADAPTER_CONFIG} & files and any(map(_TOKENIZER.fullmatch, files))):
        return False
    if not with_weights:
        return True
    found = weights(files)
    if INDEX not in found:
        return bool(found)
    try:
        shards = set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return shards <= files
