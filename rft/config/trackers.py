"""``[trackers]``: where else the metrics of a run are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rft.config.section import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "jsonl"]


class TrackersConfig(Section):
    use: tuple[TrackerName, ...] = ()
    """Any of ``tensorboard``, ``wandb``, ``mlflow`` and ``jsonl``. A role of its own feeds them from the log, so a
    tracker that is down or slow never stops or slows a run."""
    folder: Path | None = None
    """Folder for the files of trackers on this machine; by default ``trackers`` in the run's folder."""
    project: str = "stream-rft"
    """Name of the project in Weights & Biases and of the experiment in MLflow."""
    wandb_mode: Literal["online", "offline"] = "online"
    """``offline`` writes to ``folder``, and ``wandb sync`` sends it later. The API key comes from WANDB_API_KEY or
    ``wandb login``, never from the configuration."""
    wandb_entity: str | None = None
    """User or team in Weights & Biases."""
    mlflow_uri: str | None = None
    """Tracking server or store of MLflow. By default MLFLOW_TRACKING_URI, or else files in ``folder``."""
    queue: int = Field(default=10_000, ge=1)
    """Limit on points that wait for one tracker. Further points are skipped, and `rft track` can send them later."""
    close_s: float = Field(default=15.0, gt=0, le=25)
    """How long trackers may take at the end of a run."""
