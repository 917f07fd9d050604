"""Finds faults before anything is started, so that they cost a second and not a minute."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rft.algorithms.advice import algorithm_warnings
from rft.config import AlgorithmConfig, Config
from rft.errors import PolicyError
from rft.lora.adapter import base_model_folder
from rft.model_files.model_folder import is_model_folder


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


def warn_of_algorithm(config: Config) -> list[str]:
    """Return a warning for each setting of a trainer's algorithm that hardly does what its user expects."""
    trainers = [config, *(config.of_trainer(identity) for identity in config.trainers)]
    found = [warning for trainer in trainers for warning in algorithm_warnings(trainer.algorithm)]
    return list(dict.fromkeys(found))


def check_algorithm(config: Config) -> None:
    """Raise ConfigError when a trainer's algorithm cannot be composed.

    Causes are unknown names, wrong options, functions of the user that do not load, and weights of stale tokens that
    nothing bounds.
    """
    trainers = [config, *(config.of_trainer(identity) for identity in config.trainers)]
    if all(trainer.algorithm == AlgorithmConfig() and trainer.buffer.too_stale != "keep" for trainer in trainers):
        return
    # The import takes seconds, and most runs have nothing to check.
    from rft.algorithms.compose import compose
    from rft.algorithms.stale_groups import algorithm_of

    for trainer in trainers:
        compose(algorithm_of(trainer), max_tokens=trainer.rollout.max_tokens)
