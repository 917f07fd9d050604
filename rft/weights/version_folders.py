"""Writes and reads weight versions as folders in Hugging Face layout.

``<run>/weights/<model>/v00000012/`` holds ``model.safetensors``, or adapters in PEFT's two files, and the model's
configuration and tokenizer files. A folder appears whole or not at all. It is not synced to the disk: if a power
failure damages a version, its digest reveals that, and the trainer restores it from its checkpoint, which is synced.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from threading import Event as StopEvent

from rft.config import Config
from rft.errors import WeightsError
from rft.model_files.atomic_folder import remove_folder
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE, WEIGHTS_FILE, weights_path, write_folder
from rft.retry import Backoff, retry
from rft.telemetry.activity import role_activity
from rft.weights.transport import CHECKPOINT, NewVersion
from schemas.events import WeightVersion

FOLDER = "weights"
FULL_DISK_RETRY = Backoff(2.0)
"""Pause between two tries to write weights to a disk that is full."""

logger = logging.getLogger(__name__)


class VersionFolders:
    """Writes the folders of one trainer's versions."""

    def __init__(self, config: Config, companions: Mapping[str, bytes], stop: StopEvent) -> None:
        """``companions`` are the model's other files, by name. ``stop`` ends the wait for space on the disk."""
        self._run_path = config.run.path
        self._keep_versions = config.trainer.keep_versions
        self._companions = companions
        self._stop = stop

    def write(self, new: NewVersion) -> WeightVersion:
        """Write a version's folder and return the event that names it. Raises WeightsError."""
        return write_version(new, self._companions, self._run_path, keep_versions=self._keep_versions)

    def write_when_possible(self, new: NewVersion) -> WeightVersion:
        """Write a version's folder, waiting for space while the disk is full. Raises WeightsError if stopped then."""

        def report(error: Exception, _: int) -> None:
            # Without what changes between the tries, as the free space: another text would be another wait.
            role_activity().waits("the disk of %s, which takes no weight version", str(self._run_path))
            logger.error("%s. Trying again every %g s", error, FULL_DISK_RETRY.first_s)

        return retry(
            lambda: self.write(new),
            retryable=lambda error: isinstance(error, WeightsError) and not self._stop.is_set(),
            backoff=FULL_DISK_RETRY,
            pause=self._stop.wait,
            on_failure=report,
        )


def write_version(
    new: NewVersion, companions: Mapping[str, bytes], run_path: Path, *, keep_versions: int
) -> WeightVersion:
    """Write the folder of a version and return the event that announces it.

    The weights are adapters if PEFT's ``adapter_config.json`` is among the ``companions``. Deletes all but the newest
    ``keep_versions``. Raises WeightsError, naming the disk, when the folder cannot be written; nothing of it is left
    then.
    """
    folder = version_folder(run_path, new.model, new.version)
    if not _holds(folder, new.weights.sha256):
        name = ADAPTER_FILE if ADAPTER_CONFIG in companions else WEIGHTS_FILE
        write_folder(folder, {**companions, name: new.weights.data}, f"weight version {new.version}")
    prune(run_path, new.model, newest=new.version, keep_versions=keep_versions)
    return new.announcement(CHECKPOINT, f"{FOLDER}/{new.model}/{folder.name}")


def fetch(announcement: WeightVersion, run_path: Path) -> Path:
    """Verify the weights of an announced version and return its folder.

    Raises WeightsError when it is gone or holds other weights than were announced. Wait for a newer version then.
    """
    folder = run_path / announcement.uri
    name = f"weight version {announcement.version} of {announcement.model}"
    try:
        with weights_path(folder).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{name} is not at {folder}: {error.strerror or error}. Raise trainer.keep_versions if it was deleted; "
            "give explorers the trainer's run.folder if they do not share it"
        ) from error
    if digest != announcement.sha256:
        raise WeightsError(f"{name} at {folder} has sha256 {digest}, but {announcement.sha256} was announced")
    return folder


def prune(run_path: Path, model: str, *, newest: int, keep_versions: int) -> None:
    """Delete all versions of ``model`` up to ``newest - keep_versions``."""
    for folder in versions_root(run_path, model).glob("v*"):
        number = folder.name[1:]
        if number.isdigit() and int(number) <= newest - keep_versions:
            remove_folder(folder)


def versions_root(run_path: Path, model: str) -> Path:
    """Return the folder that holds a model's versions."""
    return run_path / FOLDER / model


def version_folder(run_path: Path, model: str, version: int) -> Path:
    """Return the folder of one version."""
    return versions_root(run_path, model) / f"v{version:08d}"


def _holds(folder: Path, digest: str) -> bool:
    path = weights_path(folder)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
