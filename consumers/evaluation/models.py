"""Finds the models that ``rft eval`` evaluates: folders in Hugging Face layout, by names for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rft.config import Config
from rft.errors import ConfigError
from rft.model_files.model_folder import is_model_folder
from rft.training.checkpoint import checkpoints_root
from rft.weights.version_folders import versions_root

START, NEWEST, VERSIONS, CHECKPOINTS = "start", "newest", "versions", "checkpoints"
_VERSION, _STEP = re.compile(r"v(\d+)"), re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """One model to evaluate."""

    name: str
    folder: Path


def find_models(config: Config, names: Sequence[str]) -> list[NamedModel]:
    """Return the models of these ``names``, in that order and each once.

    ``start`` is ``policy.model``; ``v12`` a weight version of this run and ``newest`` its newest; ``versions`` all that
    are on disk; ``step-50`` a checkpoint and ``checkpoints`` all; anything else a folder.

    Raises ConfigError for a model that does not exist, and names those that do.
    """
    models: dict[Path, NamedModel] = {}
    for name in names:
        for model in _models_named(config, name):
            models.setdefault(model.folder.resolve(), model)
    return list(models.values())


def _models_named(config: Config, name: str) -> list[NamedModel]:
    versions = _numbered(versions_root(config.run.path, config.trainer.model_key), _VERSION)
    checkpoints = _numbered(checkpoints_root(config.run.path, config.trainer.model_key), _STEP)
    if name == START:
        return [NamedModel(START, _model_folder(Path(config.policy.model), name))]
    if name in (VERSIONS, NEWEST, CHECKPOINTS):
        folders = checkpoints if name == CHECKPOINTS else versions
        if not folders:
            raise ConfigError(f"--weights {name}: {config.run.path} holds none; `rft run` writes them")
        selected = list(folders)[-1:] if name == NEWEST else list(folders)
        return [NamedModel(_short(folder_name), folders[folder_name]) for folder_name in selected]
    for pattern, folders, kind in ((_VERSION, versions, "weight versions"), (_STEP, checkpoints, "checkpoints")):
        number = pattern.fullmatch(name)
        if number and not Path(name).exists():
            folder = next((path for path in folders.values() if _number(path.name) == int(number[1])), None)
            if folder is None:
                available = ", ".join(map(_short, folders)) or "none"
                raise ConfigError(
                    f"--weights {name}: {config.run.path} holds these {kind}: {available}; older ones are deleted "
                    "(trainer.keep_versions, trainer.keep_checkpoints, trainer.keep_every)"
                )
            return [NamedModel(_short(folder.name), folder)]
    return [NamedModel(name, _model_folder(Path(name), name))]


def _numbered(root: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    folders = [path for path in root.glob("*") if path.is_dir() and pattern.fullmatch(path.name)]
    return {path.name: path for path in sorted(folders, key=lambda path: _number(path.name))}


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _short(name: str) -> str:
    """Return ``v00000012`` as ``v12``."""
    return re.sub(r"0+(?=\d)", "", name, count=1)


def _model_folder(folder: Path, name: str) -> Path:
    if not is_model_folder(folder):
        raise ConfigError(
            f"--weights {name}: {folder.absolute()} is no model folder (config.json, tokenizer, *.safetensors). "
            f"Name one, or {START}, {NEWEST}, v<N>, {VERSIONS}, step-<N>, {CHECKPOINTS}"
        )
    return folder
