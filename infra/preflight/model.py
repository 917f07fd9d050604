"""Checks the model's folder and the engine that loads it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.config import Config
from rft.errors import PolicyError
from rft.hub.repository import model_repository
from rft.lora.adapter import base_model_folder
from rft.model_files.model_folder import is_model_folder


def model(facts: Facts) -> Iterator[Finding]:
    """Find a model folder that is missing or incomplete, and an engine that is not installed."""
    check_model(facts.config)
    what = "the model folder" if model_repository(facts.config.policy) is None else "the hub's model"
    yield Finding("ok", f"{what} {facts.config.policy.model} is complete")


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
    advice = (
        "policy.model must be a folder in Hugging Face layout (config.json, tokenizer, *.safetensors), "
        "relative to the working directory, or a model of the hub (owner/name)"
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
