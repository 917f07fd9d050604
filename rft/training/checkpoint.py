"""Writes and reads checkpoints: weights, optimizer, random numbers and log positions as one atomic unit.

``<run>/checkpoints/step-00000050/`` is a model folder in Hugging Face layout with a ``trainer/`` folder in it:
``optimizer.safetensors`` and ``state.json``, which names the sha256 of every file, and the model folder ``reference``
if the reference was reset (:mod:`rft.training.reference`). The folder gets its name when all of it is on the disk, so
positions never run ahead of weights.
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
from rft.log.coordinates import LogPosition, ReusePosition
from rft.model_files.atomic_folder import describe_write_failure, remove_folder, write_files
from rft.training.progress import LogProgress

FOLDER = "checkpoints"
FORMAT = 1
_STATE = "trainer/state.json"
_OPTIMIZER = "trainer/optimizer.safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """Holds everything but tensors."""

    model_key: str
    step: int
    """Gradient steps taken."""
    version: int
    """Newest announced weight version."""
    version_step: int
    """Step whose weights that version is."""
    digest: str
    """sha256 of the weights in this checkpoint as versions are published. With LoRA that is the whole model with its
    adapters merged, or with ``weights.content = "adapters"`` the adapters alone."""
    initial_digest: str
    """sha256 of the weights that training started from."""
    last_record: LogPosition | None
    """Where this trainer's newest entry stands in ``steps``; None before the first."""
    progress: Mapping[str, Any]
    """:meth:`rft.training.progress.LogProgress.to_json`, and under ``pool`` the reuse positions."""
    recorded_digest: str = ""
    """sha256 that the redo log holds for this step, if it differs from ``digest``: see ``trainer.redo_tolerance``."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """What bit-for-bit repetition depends on: versions, threads, machine, hyperparameters."""
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """Kafka's ids of the topics that the positions are of, by entity; empty from brokers and releases without."""
    hub_revisions: Mapping[str, str] = field(default_factory=dict)
    """Commits of the hub's repositories that the run uses: :mod:`rft.hub.revisions`."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Holds a checkpoint that was read and verified."""

    folder: Path
    """A model folder in Hugging Face layout; with LoRA, a folder of PEFT's adapters."""
    state: CheckpointState
    optimizer: Mapping[str, Tensor]
    rng: Mapping[str, Tensor]
    """States of the random number generators, by device type."""

    def log_progress(self) -> LogProgress:
        """Return how far the trainer was in the log. Raises CheckpointError when that is damaged."""
        try:
            return LogProgress.from_json(self.state.progress)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{self.folder}: damaged positions: {error}") from error

    def reuse_positions(self) -> list[ReusePosition]:
        """Return which events were trained and may be trained again. Raises CheckpointError when that is damaged."""
        try:
            return [ReusePosition(*position) for position in self.state.progress.get("pool", ())]
        except TypeError as error:
            raise CheckpointError(f"{self.folder}: damaged positions: {error}") from error


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
    """Write a checkpoint and delete all but the newest ``keep`` and those of every ``keep_every``-th step.

    ``weights`` are files by name: a model's, or adapters with their configuration.

    Raises CheckpointError, naming the disk, when it cannot be written. Nothing of it is left then, and older
    checkpoints are unchanged.
    """
    root = checkpoints_root(run_path, state.model_key)
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
        cause = describe_write_failure(error, run_path, contents)
        raise CheckpointError(f"cannot write the checkpoint of step {state.step} to {root}: {cause}") from error
    return folder


def checkpoints_root(run_path: Path, model_key: str) -> Path:
    """Return the folder of a trainer's checkpoints: ``<run>/checkpoints/<model_key>``."""
    return run_path / FOLDER / model_key


def newest_checkpoint(run_path: Path, model_key: str) -> Checkpoint | None:
    """Return a trainer's newest undamaged checkpoint; None if there is none at all.

    Damaged ones are logged and skipped: an older one leads to the same weights, by more steps of the redo log.
    Raises CheckpointError when all are damaged.
    """
    root = checkpoints_root(run_path, model_key)
    damaged: list[str] = []
    for folder in _folders(root):
        try:
            return read_checkpoint(folder)
        except CheckpointError as error:
            logger.warning("skipping a damaged checkpoint: %s", error)
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
        # Earlier releases wrote it under "made_with".
        described.setdefault("environment", described.get("made_with", {}))
        if described["last_record"] is not None:
            described["last_record"] = LogPosition(*described["last_record"])
        known = [
            f.name for f in fields(CheckpointState) if f.name in described or f.default is f.default_factory is MISSING
        ]
        state = CheckpointState(**{name: described[name] for name in known})
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return Checkpoint(folder, state, _with_prefix("optimizer/", tensors), _with_prefix("rng/", tensors))


def rng_states() -> dict[str, Tensor]:
    """Return the states of torch's random number generators, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: Mapping[str, Tensor]) -> None:
    """Set the generators to the states that :func:`rng_states` returned."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _folders(root: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    return sorted((f for f in root.glob("step-*") if f.name[5:].isdigit()), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name[5:])


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
