"""Receives weights in vLLM's workers: tensors arrive while the engine generates, and are loaded while it pauses.

``worker.py`` registers this with vLLM's ``WeightTransferEngineFactory`` as ``rft``. In a tensor-parallel engine each
worker stages whole tensors and keeps its share when it loads them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.distributed.weight_transfer import WeightTransferEngine
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from rft.lora.adapter import merge_adapters
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE
from rft.model_files.tensors import read_weights
from rft.policy.vllm.update import WeightSource
from rft.weights.receiver import Receiver
from rft.weights.transfer_spec import TransferSpec


@dataclass
class EmptyInitInfo(WeightTransferInitInfo):
    """Holds nothing: each transfer names its own source, so that a failed one leaves nothing behind."""


@dataclass
class StagedUpdateInfo(WeightTransferUpdateInfo):
    """Names the staged weights to load."""

    version: int


@dataclass
class Staging:
    """Weights on their way into this process. If the thread that fills it hangs, both are abandoned."""

    version: int
    adapter: str | None = None
    """The text of ``adapter_config.json`` if the weights are adapters."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def fill(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        try:
            self.tensors = dict(tensors)
        # The policy asks for the error; raised in this thread, no one would see it.
        except Exception as error:
            self.error = str(error) or type(error).__name__
        finally:
            self.done.set()


class StagedWeightTransferEngine(WeightTransferEngine[EmptyInitInfo, StagedUpdateInfo]):
    """Holds at most one staged version, the newest requested."""

    init_info_cls = EmptyInitInfo
    update_info_cls = StagedUpdateInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._staging: Staging | None = None
        self._receiver = Receiver()

    def stage(self, version: int, source: WeightSource, rank: int) -> None:
        """Start to fetch ``version`` for the engine's worker ``rank``, and return. A fetch in progress is dropped."""
        self._staging = Staging(version, source["adapter"])
        tensors = self._fetch_and_merge(source, rank)
        threading.Thread(target=self._staging.fill, args=(tensors,), name="weights", daemon=True).start()

    def _fetch_and_merge(self, source: WeightSource, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
        fetched = self._fetch(source, rank)
        if source["merge_into"] is None:
            yield from fetched
        else:
            folder, scale = source["merge_into"]
            yield from merge_adapters(read_weights(folder), dict(fetched), scale).items()

    def _fetch(self, source: WeightSource, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
        match source["transport"]:
            case "checkpoint":
                yield from read_weights(source["folder"]).items()
            case "collective":
                yield from self._receiver.receive(TransferSpec.from_json(source["specs"][rank]))

    def state(self, version: int) -> tuple[bool, str]:
        """Return whether fetching ``version`` has ended, and the error if it failed."""
        staging = self._staging
        if staging is None or staging.version != version:
            return True, f"version {version} is not being staged"
        return staging.done.is_set(), staging.error

    @contextmanager
    def adapters_folder(self, version: int) -> Iterator[Path]:
        """Yield a temporary folder with the staged adapters in PEFT's layout. Raises RuntimeError, OSError."""
        staging = self._complete_staging(version)
        if staging.adapter is None:
            raise RuntimeError(f"version {version} is a whole model")
        with TemporaryDirectory(prefix="rft-adapters-") as folder:
            save_file(staging.tensors, Path(folder, ADAPTER_FILE))
            Path(folder, ADAPTER_CONFIG).write_text(staging.adapter, "utf-8")
            yield Path(folder)
        self._staging = None

    def drop(self) -> None:
        """Drop staged weights, and abort a fetch in progress."""
        self._staging = None
        self._receiver.abort()

    def init_transfer_engine(self, init_info: EmptyInitInfo) -> None:
        """Do nothing, see :class:`EmptyInitInfo`."""

    def start_weight_update(self) -> None:
        """Bring the layers into the form in which checkpoints are loaded."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: StagedUpdateInfo) -> None:
        """Load the staged weights. Raises RuntimeError if they have not arrived."""
        staging = self._complete_staging(update_info.version)
        self.model.load_weights(staging.tensors.items())
        self._staging = None

    def _complete_staging(self, version: int) -> Staging:
        staging = self._staging
        if staging is None or staging.version != version or not staging.done.is_set() or staging.error:
            raise RuntimeError(f"version {version} is not staged")
        return staging

    def finish_weight_update(self) -> None:
        """Bring the layers back into the form in which they compute."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        head = getattr(self.model, "lm_head", None)
        if self.device.type == "cpu" and head is not None and hasattr(head, "quant_method"):
            # vLLM 0.32 packs the output layer for the CPU's matrix product. An output layer that is tied to the
            # embedding is in no file, so nothing packed it again, and it would continue with the old weights.
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Drop staged weights."""
        self.drop()
