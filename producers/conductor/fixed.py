"""The weights of a run in which nothing is trained: the configured model as version 0."""

from __future__ import annotations

from pathlib import Path

from rft.config import Config
from rft.weights import checkpoint as transport
from rft.weights.adapters import Adapter, base_model_folder
from schemas.events import WeightVersion


def fixed_weights(config: Config) -> WeightVersion:
    """Copy ``policy.model`` into the run's folder as version 0; the event that announces it.

    To evaluate, it is the final version too. Raises PolicyError or WeightsError.
    """
    # These load torch.
    from rft.policy.tensors import read_weights
    from rft.weights.file import weights_file

    folder = Path(config.policy.model)
    adapter, beneath = Adapter.of_folder(folder), base_model_folder(folder)
    weights = weights_file(read_weights(folder), metadata=adapter.metadata() if adapter else None)
    companions = transport.companion_files(beneath)
    if adapter:
        companions = adapter.beside(companions, str(beneath))
    return transport.publish(
        weights.data,
        companions,
        config.run.path,
        model=config.trainer.model_key,
        version=0,
        step=0,
        final=config.run.mode == "eval",
        keep=config.trainer.keep_versions,
        digest=weights.sha256,
    )
