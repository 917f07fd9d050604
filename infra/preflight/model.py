"""Checks the model's folder and the engine that loads it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.config import Config
from rft.errors import PolicyError
from rft.lora.adapter import base_model_folder
from rft.model_files.model_folder import is_model_folder


def model(facts: Facts) -> Iterator[Finding]:
    """Find a model folder that is missing or incomplete, and an engine that is not installed."""
    check_model(facts.config)
    yield Finding("ok", f"the model folder {facts.config.policy.model} is complete")


def check_model(config: Config) -> None:
    """Raise PolicyError when ``policy.model`` is no model folder or ``policy.engine`` is not installed.

    A folder of adapters needs its base model. Whether the model loads is left to the roles.
    """
    folder = Path(config.policy.model)
    advice = (
        "policy.model must be a folder in Hugging Face layout (config.json, tokenizer, *.safetensors), "
        "relative to the working directory"
    )
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
        raise PolicyError(f"the model folder {folder.absolute()} has no {' and no '.join(missing)}: {advice}.")
    base_model_folder(folder)
    if config.policy.engine == "vllm" and find_spec("vllm") is None:
        from rft.policy.vllm.engine_start import NOT_INSTALLED

        raise PolicyError(NOT_INSTALLED)
