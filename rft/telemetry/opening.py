"""Which trackers a configuration names, and how each is opened."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rft.config import Config
from rft.config_sources import masked
from rft.errors import ConfigError
from rft.telemetry.base import RunFacts, Tracker
from rft.telemetry.feed import Feed
from rft.telemetry.jsonl import JsonlTracker
from rft.telemetry.mlflow import MlflowTracker
from rft.telemetry.tensorboard import TensorBoardTracker
from rft.telemetry.wandb import WandbTracker

IDENTITY = "identity"
_LIBRARY = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def check_trackers(config: Config) -> None:
    """Raise ConfigError when a tracker's library is not installed."""
    for name in config.trackers.use:
        library = _LIBRARY.get(name)
        if library and find_spec(library) is None:
            raise ConfigError(f"trackers.use names '{name}', which needs: pip install 'stream-rft[{name}]'")


def open_feeds(config: Config) -> list[Feed]:
    """A feed for each tracker in ``trackers.use``. Trackers are opened by their own threads."""
    run = run_facts(config)
    return [
        Feed(name, _opener(config, name, run), config.trackers.queue) for name in dict.fromkeys(config.trackers.use)
    ]


def run_facts(config: Config) -> RunFacts:
    """What trackers are told of the run. Makes their folder, and the run's identity if it has none."""
    folder = (config.trackers.folder or config.run.path / "trackers").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return RunFacts(config.run.name, _identity(folder / IDENTITY), folder, masked(config))


def _identity(path: Path) -> str:
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(uuid.uuid4().hex[:16])
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii")


def _opener(config: Config, name: str, run: RunFacts) -> Callable[[bool], Tracker]:
    settings = config.trackers
    openers: dict[str, Callable[[bool], Tracker]] = {
        "jsonl": lambda again: JsonlTracker(run, again),
        "tensorboard": lambda again: TensorBoardTracker(run, again),
        "wandb": lambda _: WandbTracker(
            run, project=settings.project, mode=settings.wandb_mode, entity=settings.wandb_entity
        ),
        "mlflow": lambda _: MlflowTracker(run, uri=settings.mlflow_uri, experiment=settings.project),
    }
    return openers[name]
