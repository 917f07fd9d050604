"""Which models ``rft eval`` is to bench: names for people to folders in Hugging Face layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rft.config import Config
from rft.errors import ConfigError
from rft.training.checkpoint import checkpoints_of
from rft.weights.adapters import is_described
from rft.weights.checkpoint import versions_of

START, NEWEST, VERSIONS, CHECKPOINTS = "start", "newest", "versions", "checkpoints"
_VERSION, _STEP = re.compile(r"v(\d+)"), re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model to bench."""

    name: str
    folder: Path


def find_models(config: Config, asked: Sequence[str]) -> list[Candidate]:
    """The models that ``asked`` names, in that order, none twice.

    ``start`` is ``policy.model``; ``v12`` a weight version of this run and ``newest`` its newest; ``versions`` all that
    are on disk; ``step-50`` a checkpoint and ``checkpoints`` all; anything else a folder.

    Raises ConfigError for what is not there, naming what is.
    """
    found: dict[Path, Candidate] = {}
    for word in asked:
        for candidate in _named(config, word):
            found.setdefault(candidate.folder.resolve(), candidate)
    return list(found.values())


def _named(config: Config, word: str) -> list[Candidate]:
    versions = _numbered(versions_of(config.run.path, config.trainer.model_key), _VERSION)
    steps = _numbered(checkpoints_of(config.run.path, config.trainer.model_key), _STEP)
    if word == START:
        return [Candidate(START, _model_folder(Path(config.policy.model), word))]
    if word in (VERSIONS, NEWEST, CHECKPOINTS):
        chosen = steps if word == CHECKPOINTS else versions
        if not chosen:
            raise ConfigError(f"--weights {word}: {config.run.path} holds none; `rft run` writes them")
        names = list(chosen)[-1:] if word == NEWEST else list(chosen)
        return [Candidate(_short(name), chosen[name]) for name in names]
    for pattern, chosen, kind in ((_VERSION, versions, "weight versions"), (_STEP, steps, "checkpoints")):
        number = pattern.fullmatch(word)
        if number and not Path(word).exists():
            folder = next((path for name, path in chosen.items() if _number(name) == int(number[1])), None)
            if folder is None:
                kept = ", ".join(map(_short, chosen)) or "none"
                raise ConfigError(
                    f"--weights {word}: of {kind} {config.run.path} holds {kept}; older ones are deleted "
                    "(trainer.keep_versions, trainer.keep_checkpoints, trainer.keep_every)"
                )
            return [Candidate(_short(folder.name), folder)]
    return [Candidate(word, _model_folder(Path(word), word))]


def _numbered(root: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    folders = [path for path in root.glob("*") if path.is_dir() and pattern.fullmatch(path.name)]
    return {path.name: path for path in sorted(folders, key=lambda path: _number(path.name))}


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _short(name: str) -> str:
    """``v00000012`` as ``v12``."""
    return re.sub(r"0+(?=\d)", "", name, count=1)


def _model_folder(folder: Path, word: str) -> Path:
    if not is_described(folder):
        raise ConfigError(
            f"--weights {word}: {folder.absolute()} is no model folder (config.json, tokenizer, *.safetensors). "
            f"Name one, or {START}, {NEWEST}, v<N>, {VERSIONS}, step-<N>, {CHECKPOINTS}"
        )
    return folder
