"""``[run]``: name, folder, seed and mode of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rft.config.section import Name, Section


class RunConfig(Section):
    name: Name = "run"
    """Name of the run; its folder is ``folder/name``."""
    folder: Path = Path("runs")
    """Where run folders are made."""
    seed: int = Field(default=0, ge=0)
    """Seeds weights, tasks and sampling."""
    mode: Literal["online", "train", "explore", "eval"] = "online"
    """``online``: explore and train. ``train``: no tasks are issued; the trainer learns from what is imported or
    published by others. ``explore``: ``policy.model`` rolls out and scores the tasks of ``trainer.steps`` steps, and
    nothing is trained. ``eval``: ``policy.model`` answers the held-out tasks, no more."""

    @property
    def path(self) -> Path:
        """The run's own folder, absolute."""
        return (self.folder / self.name).absolute()
