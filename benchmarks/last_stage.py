"""Builds a run of the quickstart's last stage alone, from the model that examples/quickstart/make_model.py makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rft.config import Config
from rft.config_sources import load_config
from rft.config_toml import masked, to_toml

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"


def quickstart_model(folder: Path) -> Path:
    """Make the quickstart's model in ``folder``."""
    subprocess.run([sys.executable, str(QUICKSTART / "make_model.py"), str(folder)], check=True)
    return folder


def reinforcement(model: Path) -> Config:
    """Return the configuration of the quickstart's last stage, starting from ``model``."""
    config = load_config(QUICKSTART / "quickstart.toml")
    stage = config.of_stage(len(config.stages) - 1, str(model))
    return stage.model_copy(
        update={"run": stage.run.model_copy(update={"folder": config.run.folder, "name": "quickstart"})}
    )


def write_reinforcement(folder: Path) -> Path:
    """Write that configuration and its model into ``folder``."""
    file = folder / "quickstart.toml"
    file.write_text(to_toml(masked(reinforcement(quickstart_model(folder / "quickstart-model")))), encoding="utf-8")
    return file
