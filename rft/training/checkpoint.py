"""Checkpoints: weights, optimiser, random numbers and the position in the log they stand for, as one atomic unit.

``<run>/checkpoints/step-00000050/`` is a model folder in Hugging Face layout with a ``trainer/`` folder in it:
``optimizer.safetensors`` and ``state.json``, which names every file's sha256. The folder is renamed into place when
all of it is on the disk, so positions never run ahead of weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rft.errors import CheckpointError
from rft.weights.folders import not_written, remove_folder, write_files

FOLDER = "checkpoints"
FORMAT = 1
_STATE = "trainer/state.json"
_OPTIMIZER = "trainer/optimizer.safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """Everything but tensors."""

    model_key: str
    step: int
    """Gradient steps taken."""
    version: int
    """Newest announced weight version."""
    version_step: int
    """Step whose weights that version is."""
    digest: str
    """sha256 of the weights in this checkpoint as versions are published: with LoRA, of the whole model with its
    adapters merged, or with ``weights.content = "adapters"`` of these alone."""
    initial_digest: str
    """sha256 of the weights that training started from."""
    last_record: tuple[int, int] | None
    """(partition, offset) of the newest own event in ``steps``; None before the first."""
    progress: Mapping[str, Any]
    """:meth:`rft.training.progress.LogProgress.to_json`"""
    recorded_digest: str = ""
    """sha256 that the redo log holds for this step, if another than ``digest``: see ``trainer.redo_tolerance``."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """What bit-for-bit repetition hangs on: versions, threads, machine, hyperparameters."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    folder: Path
    """A model folder in Hugging Face layout; with LoRA, one of PEFT's adapters."""
    state: CheckpointState
    optimizer: Mapping[str, Tensor]
    rng: Mapping[str, Tensor]
    """Random number generators' states by device type."""


def write_checkpoint(
    run_path: Path,
    state: CheckpointState,
    *,
    weights: Mapping[str, bytes | memoryview],
    companions: Mapping[str, bytes],
    optimizer: Mapping[str, Tensor],
    keep: int,
    keep_every: int = 0,
) -> Path:
    """Write a checkpoint and delete all but the newest ``keep`` and those of every ``keep_every`` steps.

    ``weights`` are files by name: a model's, or adapters' and what describes them.

    Raises CheckpointError, naming the disk, when it cannot be written; nothing of it is left then, and older
    checkpoints are as they were.
    """
    root = checkpoints_of(run_path, state.model_key)
    folder = root / f"step-{state.step:08d}"
    tensors = {f"optimizer/{name}": tensor.contiguous() for name, tensor in optimizer.items()}
    tensors |= {f"rng/{name}": tensor for name, tensor in rng_states().items()}
    contents: dict[str, bytes | memoryview] = {**companions, **weights, _OPTIMIZER: save(tensors)}
    described = {
        "format": FORMAT,
        **asdict(state),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents[_STATE] = json.dumps(described, indent=1).encode()
    try:
        write_files(folder, contents, durable=True)
        for old in _folders(root)[keep:]:
            if not keep_every or _step(old) % keep_every:
                remove_folder(old)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint of step {state.step} to {root}: {not_written(error, run_path, contents)}"
        ) from error
    return folder


def checkpoints_of(run_path: Path, model_key: str) -> Path:
    """Where a trainer's checkpoints are: ``<run>/checkpoints/<model_key>``."""
    return run_path / FOLDER / model_key


def newest_checkpoint(run_path: Path, model_key: str) -> Checkpoint | None:
    """A trainer's newest checkpoint that is undamaged; None when there is none at all.

    Damaged ones are logged and passed over: older ones lead to the same weights, by more steps of the redo log.
    Raises CheckpointError when all are damaged.
    """
    root = checkpoints_of(run_path, model_key)
    damaged: list[str] = []
    for folder in _folders(root):
        try:
            return read_checkpoint(folder)
        except CheckpointError as error:
            logger.warning("passing over a damaged checkpoint: %s", error)
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(f"no checkpoint can be read. {damaged[0]}. Delete {root} to redo all steps")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises CheckpointError."""
    try:
        described = json.loads((folder / _STATE).read_bytes())
        if described["format"] != FORMAT:
            raise CheckpointError(f"{folder} has format {described['format']}, but this release reads {FORMAT}")
        for name, digest in described["files"].items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise CheckpointError(f"{folder / name} does not have the sha256 that {_STATE} names")
        tensors = load((folder / _OPTIMIZER).read_bytes())
        known = [f.name for f in fields(CheckpointState) if f.name in described or f.default is MISSING]
        state = CheckpointState(**{name: described[name] for name in known})
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return Checkpoint(folder, state, _under("optimizer/", tensors), _under("rng/", tensors))


def rng_states() -> dict[str, Tensor]:
    """States of torch's random number generators, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: Mapping[str, Tensor]) -> None:
    """Back to what :func:`rng_states` returned."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _folders(root: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((f for f in root.glob("step-*") if f.name[5:].isdigit()), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name[5:])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
