"""Checks the model's folder and the engine that loads it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from infra.preflight.tensors import tensor_shapes
from infra.preflight.tokenizer import read_json
from rft.config import Config
from rft.errors import PolicyError
from rft.hub.repository import model_repository
from rft.lora.adapter import base_model_folder
from rft.model_files.model_folder import is_model_folder

LAYOUT = (
    "a folder in Hugging Face layout (config.json, tokenizer, *.safetensors), relative to the working directory, or a "
    "model of the hub (owner/name)"
)
_OTHER_FORMATS = ("*.bin", "*.pth", "*.pt", "*.gguf")


def model(facts: Facts) -> Iterator[Finding]:
    """Find a model folder that is missing, incomplete or damaged, and an engine that is not installed."""
    config = facts.config
    check_model(config)
    if model_repository(config.policy) is not None:
        yield Finding("ok", f"the hub's model {config.policy.model} is complete")
        return
    folder = Path(config.policy.model)
    base = base_model_folder(folder)
    described = read_json(base / "config.json")
    if not described.get("model_type"):
        raise PolicyError(
            f"{base / 'config.json'} names no model_type, so no library can load it: copy the model again"
        )
    tensors = tensor_shapes(base)
    if not tensors:
        raise PolicyError(f"the files of weights in {base.absolute()} hold no tensors: copy the model again")
    yield Finding("ok", f"model {folder}: {described['model_type']}, {len(tensors)} tensors")
    for trainer in facts.trainers:
        if trainer.algorithm.teacher:
            check_folder(Path(trainer.algorithm.teacher), "algorithm.teacher")


def check_model(config: Config) -> None:
    """Raise PolicyError when ``policy.model`` is no model folder or ``policy.engine`` is not installed.

    A folder of adapters needs its base model. Whether the model loads is left to the roles. Of a repository of the hub,
    the files that it has are looked up, and nothing is downloaded. Raises HubError if it is no model.
    """
    if config.policy.engine == "vllm" and find_spec("vllm") is None:
        from rft.policy.vllm.engine_start import NOT_INSTALLED

        raise PolicyError(NOT_INSTALLED)
    if (repository := model_repository(config.policy)) is not None:
        from rft.hub.files import plan_model  # loads the hub's client

        plan_model(repository)
        return
    folder = Path(config.policy.model)
    check_folder(folder, "policy.model")
    base_model_folder(folder)


def check_folder(folder: Path, setting: str) -> None:
    """Raise PolicyError unless ``folder`` holds a model or adapters. ``setting`` names it."""
    advice = f"{setting} must be {LAYOUT}"
    if folder.is_file():
        raise PolicyError(f"{setting} = {str(folder)!r} is a file: {advice}. Name the folder that the file is in.")
    if not folder.is_dir():
        raise PolicyError(f"no model at {folder.absolute()}: {advice}.")
    missing = [
        name
        for name, found in {
            "config.json": is_model_folder(folder),
            "*.safetensors": any(folder.glob("*.safetensors")),
        }.items()
        if not found
    ]
    if missing:
        other = next((file.name for pattern in _OTHER_FORMATS for file in folder.glob(pattern)), None)
        hint = f" It has {other}: load it with transformers and save it with save_pretrained." if other else ""
        raise PolicyError(f"the model folder {folder.absolute()} has no {' and no '.join(missing)}: {advice}.{hint}")
