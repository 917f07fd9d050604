"""Opens the trackers that a configuration names."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rft.config import Config
from rft.config_toml import masked
from rft.errors import ConfigError
from rft.telemetry.base import RunInfo, Tracker
from rft.telemetry.jsonl import JsonlTracker
from rft.telemetry.mlflow import MlflowTracker
from rft.telemetry.tensorboard import TensorBoardTracker
from rft.telemetry.tracker_thread import TrackerThread
from rft.telemetry.wandb import WandbTracker

IDENTITY = "identity"
_LIBRARIES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def check_trackers(config: Config) -> None:
    """Raise ConfigError if the library of a tracker in ``trackers.use`` is not installed."""
    for name in config.trackers.use:
        library = _LIBRARIES.get(name)
        if library and find_spec(library) is None:
            raise ConfigError(f"trackers.use names '{name}', which needs: pip install 'stream-rft[{name}]'")


def start_trackers(config: Config) -> list[TrackerThread]:
    """Start a thread for each tracker in ``trackers.use``. Each thread opens its tracker itself."""
    run = run_info(config)
    names = dict.fromkeys(config.trackers.use)
    return [TrackerThread(name, _opener(config, name, run), config.trackers.queue) for name in names]


def run_info(config: Config) -> RunInfo:
    """Describe the run to trackers. Creates their folder, and the run's identity if it has none."""
    folder = (config.trackers.folder or config.run.path / "trackers").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return RunInfo(config.run.name, _identity(folder / IDENTITY), folder, masked(config))


def _identity(path: Path) -> str:
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(uuid.uuid4().hex[:16])
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii")


def _opener(config: Config, name: str, run: RunInfo) -> Callable[[bool], Tracker]:
    settings = config.trackers
    openers: dict[str, Callable[[bool], Tracker]] = {
        "jsonl": lambda reopened: JsonlTracker(run, reopened),
        "tensorboard": lambda reopened: TensorBoardTracker(run, reopened),
        "wandb": lambda _: WandbTracker(
            run, project=settings.project, mode=settings.wandb_mode, entity=settings.wandb_entity
        ),
        "mlflow": lambda _: MlflowTracker(run, uri=settings.mlflow_uri, experiment=settings.project),
    }
    return openers[name]
