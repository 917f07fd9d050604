"""vLLM's side of a weight transfer: tensors arrive while the engine generates, and are loaded while it pauses.

Registered with vLLM's ``WeightTransferEngineFactory`` as ``rft``; lives in the processes of vLLM's workers. In a
tensor-parallel engine each worker stages whole tensors and keeps its share when it loads them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.distributed.weight_transfer import WeightTransferEngine
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo

from rft.policy.tensors import read_weights
from rft.weights.adapters import ADAPTER_CONFIG, ADAPTER_FILE, applied
from rft.weights.receiving import Receiver
from rft.weights.reception import Reception

BACKEND = "rft"


@dataclass
class NothingToInitialise(WeightTransferInitInfo):
    """Each transfer names its own source, so that a failed one leaves nothing behind."""


@dataclass
class StagedUpdate(WeightTransferUpdateInfo):
    """Which staged weights are to be loaded."""

    version: int


@dataclass
class Staging:
    """Weights on their way into this process. The thread that fills it may be abandoned, if it hangs."""

    version: int
    adapter: str | None = None
    """``adapter_config.json``, if they are adapters."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def fill(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        try:
            self.tensors = dict(tensors)
        # Whatever goes wrong is told to the policy, which asks; here nobody would see it.
        except Exception as error:
            self.error = str(error) or type(error).__name__
        finally:
            self.done.set()


class StagedWeightTransferEngine(WeightTransferEngine[NothingToInitialise, StagedUpdate]):
    """Holds at most one staged version, the newest asked for."""

    init_info_cls = NothingToInitialise
    update_info_cls = StagedUpdate

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._staging: Staging | None = None
        self._receiver = Receiver()

    def stage(self, version: int, source: Mapping[str, Any], rank: int) -> None:
        """Begin to fetch ``version`` for the engine's worker ``rank``, and return; what was being fetched is forgotten.

        ``{"transport": "checkpoint", "folder": …}`` is a folder in Hugging Face layout, ``{"transport": "collective",
        "receptions": […]}`` a transfer, with a :class:`rft.weights.reception.Reception` in JSON for each worker.
        ``"adapter"`` is the configuration of adapters that stay by themselves, else None. ``"onto"`` is the folder of
        the model that adapters are merged into and what they are scaled by, else None.
        """
        self._staging = Staging(version, source["adapter"])
        tensors = self._whole(source, rank)
        threading.Thread(target=self._staging.fill, args=(tensors,), name="weights", daemon=True).start()

    def _whole(self, source: Mapping[str, Any], rank: int) -> Iterator[tuple[str, torch.Tensor]]:
        fetched = self._fetched(source, rank)
        if source["onto"] is None:
            yield from fetched
        else:
            folder, scale = source["onto"]
            yield from applied(read_weights(folder), dict(fetched), scale).items()

    def _fetched(self, source: Mapping[str, Any], rank: int) -> Iterator[tuple[str, torch.Tensor]]:
        match source["transport"]:
            case "checkpoint":
                yield from read_weights(source["folder"]).items()
            case "collective":
                yield from self._receiver.receive(Reception.from_json(source["receptions"][rank]))
            case unknown:
                raise ValueError(f"unknown transport {unknown!r}")

    def staged(self, version: int) -> tuple[bool, str]:
        """Whether ``version`` has arrived, and what went wrong if it never will."""
        staging = self._staging
        if staging is None or staging.version != version:
            return True, f"version {version} is not being staged"
        return staging.done.is_set(), staging.error

    @contextmanager
    def staged_adapters(self, version: int) -> Iterator[Path]:
        """What is staged in a folder as PEFT writes it, while this lasts. Raises RuntimeError, OSError."""
        staging = self._arrived(version)
        if staging.adapter is None:
            raise RuntimeError(f"version {version} is a whole model")
        with TemporaryDirectory(prefix="rft-adapters-") as folder:
            save_file(staging.tensors, Path(folder, ADAPTER_FILE))
            Path(folder, ADAPTER_CONFIG).write_text(staging.adapter, "utf-8")
            yield Path(folder)
        self._staging = None

    def forget(self) -> None:
        """Let go of what was staged, and break off what is being staged."""
        self._staging = None
        self._receiver.abort()

    def init_transfer_engine(self, init_info: NothingToInitialise) -> None:
        """Nothing to do, see :class:`NothingToInitialise`."""

    def start_weight_update(self) -> None:
        """Bring the layers into the form in which checkpoints are loaded."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: StagedUpdate) -> None:
        """Load what is staged."""
        staging = self._arrived(update_info.version)
        self.model.load_weights(staging.tensors.items())
        self._staging = None

    def _arrived(self, version: int) -> Staging:
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
            # vLLM 0.32 packs the output layer for the CPU's matrix product. A head that is the embedding is in no file,
            # so nothing packed it anew, and it would go on with the old weights.
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Let go of all."""
        self.forget()
