"""Resets the reference model to the policy every k steps (``algorithm.reference_reset``).

A reset follows from the step's number, so redone steps have the references that they had. A checkpoint between two
resets holds the reference, because the weights that it had are not in it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rft.model_files.model_folder import WEIGHTS_FILE, write_folder
from rft.model_files.weights_file import WeightsFile
from rft.training.engines.base import Engine

IN_CHECKPOINT = "trainer/reference"
"""The reference's folder in a checkpoint's. It is there once the reference was reset."""


class ReferenceResets:
    """Replaces an engine's reference, and knows in which folder the newest one is."""

    def __init__(self, engine: Engine, every: int, folder: Path) -> None:
        """Reset after every ``every``-th step; 0: never. A new reference is written to ``folder``."""
        self._engine = engine
        self._every = every
        self._folder = folder
        self._current: Path | None = None
        """The folder of the present reference; None while it is the initial model."""

    def restore(self, checkpoint: Path) -> bool:
        """Load the reference that the checkpoint in that folder holds. Returns whether it holds one."""
        stored = checkpoint / IN_CHECKPOINT
        if not stored.is_dir():
            return False
        self._engine.set_reference(stored)
        self._current = stored
        return True

    def after_step(self, step: int, weights: WeightsFile, companions: Mapping[str, bytes]) -> None:
        """Make the policy the reference if ``step`` is one after which it is reset.

        Raises WeightsError, naming the disk, when it cannot be written.
        """
        if self._every and step % self._every == 0:
            write_folder(self._folder, {**companions, WEIGHTS_FILE: weights.data}, f"reference of step {step}")
            self._engine.set_reference(self._folder)
            self._current = self._folder

    def checkpoint_files(self) -> dict[str, bytes | memoryview]:
        """Return the files that a checkpoint must hold, by name."""
        if self._current is None:
            return {}
        return {f"{IN_CHECKPOINT}/{path.name}": path.read_bytes() for path in sorted(self._current.iterdir())}

    def checkpointed(self, checkpoint: Path) -> None:
        """Note that the checkpoint in that folder holds the reference. The one that held it before may be deleted."""
        if self._current is not None:
            self._current = checkpoint / IN_CHECKPOINT
