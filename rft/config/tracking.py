"""Where else the numbers of a run are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rft.config.section import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "jsonl"]


class TrackersConfig(Section):
    use: tuple[TrackerName, ...] = ()
    """Any of ``tensorboard``, ``wandb``, ``mlflow`` and ``jsonl``, several at once. They are fed from the log by a role
    of their own; one that is down or slow never stops or slows a run."""
    folder: Path | None = None
    """Where trackers write what they keep on this machine; by default ``trackers`` in the run's folder."""
    project: str = "stream-rft"
    """Project of Weights & Biases, experiment of MLflow."""
    wandb_mode: Literal["online", "offline"] = "online"
    """``offline`` writes to ``folder``; ``wandb sync`` sends it later. The API key is read from WANDB_API_KEY or
    ``wandb login``, never from here."""
    wandb_entity: str | None = None
    """User or team."""
    mlflow_uri: str | None = None
    """Tracking server or store; MLFLOW_TRACKING_URI if not set, else files in ``folder``."""
    queue: int = Field(default=10_000, ge=1)
    """Points that wait for one tracker; further ones are left out, and `rft track` sends them later."""
    close_s: float = Field(default=15.0, gt=0, le=25)
    """How long trackers may take at the end of a run."""
