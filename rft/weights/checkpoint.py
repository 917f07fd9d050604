"""The checkpoint transport: weight versions as folders in Hugging Face layout, with their sha256 in the event.

``<run>/weights/<model>/v00000012/`` holds ``model.safetensors``, or adapters in PEFT's two files, and the model's
configuration and tokenizer files. A folder appears whole or not at all. It is not synced to the disk: a version lost
with the machine's power is found out by its digest, and the trainer's checkpoint, which is synced, makes it again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from rft.errors import WeightsError
from rft.weights.adapters import ADAPTER_CONFIG, ADAPTER_FILE, holds_adapters
from rft.weights.folders import not_written, remove_folder, write_files
from schemas.events import WeightVersion

FOLDER = "weights"
WEIGHTS_FILE = "model.safetensors"
TRANSPORT = "checkpoint"
MAX_COMPANION_BYTES = 64 * 1024 * 1024
"""Larger files beside a model are no configuration or tokenizer, and are not copied along."""
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}


def companion_files(folder: Path) -> dict[str, bytes]:
    """Configuration and tokenizer files of a model folder, by name, as they belong beside float32 weights.

    Raises WeightsError when they cannot be read.
    """
    try:
        files = {
            path.name: path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.is_file()
            and path.suffix not in _WEIGHT_SUFFIXES
            # With merged weights beside it, it would have transformers look for an adapter.
            and path.name != ADAPTER_CONFIG
            and not path.name.endswith(".index.json")
            and path.stat().st_size <= MAX_COMPANION_BYTES
        }
        description = json.loads(files["config.json"])
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"cannot read the model's files in {folder}: {error}") from error
    description.pop("torch_dtype", None)
    files["config.json"] = json.dumps(description | {"dtype": "float32"}, indent=2).encode()
    return files


def publish(
    weights: bytes | memoryview,
    companions: Mapping[str, bytes],
    run_path: Path,
    *,
    model: str,
    version: int,
    step: int,
    final: bool,
    keep: int,
    digest: str = "",
) -> WeightVersion:
    """Write one version's folder and return the event that announces it. ``digest``: its sha256, if it is known.

    ``weights`` are adapters if their ``adapter_config.json`` is among the ``companions``.
    Versions older than the newest ``keep`` are deleted. Raises WeightsError, naming the disk, when the folder cannot
    be written; nothing of it is left then.
    """
    digest = digest or hashlib.sha256(weights).hexdigest()
    folder = version_folder(run_path, model, version)
    if not _holds(folder, digest):
        name = ADAPTER_FILE if ADAPTER_CONFIG in companions else WEIGHTS_FILE
        write_folder(folder, {**companions, name: weights}, f"weight version {version}")
    prune(run_path, model, newest=version, keep=keep)
    return WeightVersion(
        model=model,
        version=version,
        step=step,
        transport=TRANSPORT,
        uri=f"{FOLDER}/{model}/{folder.name}",
        sha256=digest,
        size_bytes=len(weights),
        final=final,
        created_at=int(time.time() * 1000),
    )


def write_folder(folder: Path, files: Mapping[str, bytes | memoryview], what: str) -> None:
    """Write ``what`` as a folder of ``files``, whole or not at all. Raises WeightsError, naming the disk."""
    try:
        write_files(folder, files, durable=False)
    except OSError as error:
        raise WeightsError(f"cannot write {what} to {folder}: {not_written(error, folder, files)}") from error


def fetch(announcement: WeightVersion, run_path: Path) -> Path:
    """The folder of an announced version, its weights verified.

    Raises WeightsError when it is gone or is not what was announced; a newer version is the way on then.
    """
    folder = run_path / announcement.uri
    name = f"weight version {announcement.version} of {announcement.model}"
    try:
        with weights_path(folder).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{name} is not at {folder}: {error.strerror or error}; only the newest trainer.keep_versions are kept, "
            "and run.folder must be the trainer's own or shared with it"
        ) from error
    if digest != announcement.sha256:
        raise WeightsError(f"{name} at {folder} has sha256 {digest}, but {announcement.sha256} was announced")
    return folder


def prune(run_path: Path, model: str, *, newest: int, keep: int) -> None:
    """Delete all versions of ``model`` up to ``newest - keep``."""
    for folder in versions_of(run_path, model).glob("v*"):
        number = folder.name[1:]
        if number.isdigit() and int(number) <= newest - keep:
            remove_folder(folder)


def versions_of(run_path: Path, model: str) -> Path:
    """Where a model's versions are."""
    return run_path / FOLDER / model


def version_folder(run_path: Path, model: str, version: int) -> Path:
    """Where a version is written."""
    return versions_of(run_path, model) / f"v{version:08d}"


def weights_path(folder: Path) -> Path:
    """A version's file: of adapters, if that is what the version is, or of the model."""
    return folder / (ADAPTER_FILE if holds_adapters(folder) else WEIGHTS_FILE)


def _holds(folder: Path, digest: str) -> bool:
    path = weights_path(folder)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
