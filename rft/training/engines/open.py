"""Opens the engine that the configuration names."""

from __future__ import annotations

from pathlib import Path

from rft.config import Config
from rft.training.engines.base import Engine
from rft.training.engines.torch_engine import TorchEngine


def open_engine(folder: Path, config: Config) -> Engine:
    """Open the engine of ``trainer.engine`` with the weights in ``folder``.

    Raises PolicyError if the weights cannot be loaded, EngineError if the engine or its ranks cannot be started.
    """
    if config.trainer.engine == "deepspeed":
        # Takes seconds to import, and is an optional extra.
        from rft.training.engines.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(folder, config)
    return TorchEngine(folder, config)
