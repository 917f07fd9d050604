"""What runs in the workers of a vLLM engine besides vLLM. Only they import this module, as their worker extension.

Importing it ties the engine to the explorer's life: however the explorer ends, a ``kill -9`` included, its engine ends
too. vLLM itself ends an engine only if its client lives long enough to do so.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm.distributed.weight_transfer import WeightTransferEngineFactory

from rft.errors import first_line
from rft.policy.vllm_adapters import adapters_request

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from rft.weights.vllm_engine import StagedWeightTransferEngine

EXPLORER = "RFT_EXPLORER_PID"
"""Environment variable: whose engine this is."""
PR_SET_PDEATHSIG = 1


def live_with_explorer() -> None:
    """End this process and the engine's core with the explorer (on Linux). No-op in a program's main process."""
    core = multiprocessing.parent_process()
    if core is None or core.pid is None or EXPLORER not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    explorer = int(os.environ[EXPLORER])
    threading.Thread(target=_end_with, args=(explorer, core.pid), name="explorer-watch", daemon=True).start()


def _end_with(explorer: int, core: int) -> None:
    try:
        watched = os.pidfd_open(explorer)
    except ProcessLookupError:
        pass
    else:
        select.select([watched], [], [])
    # Our parent is the core as long as it lives; its number may be another's afterwards.
    if core != explorer and os.getppid() == core:
        os.kill(core, signal.SIGKILL)
    os._exit(1)


live_with_explorer()
WeightTransferEngineFactory.register_engine("rft", "rft.weights.vllm_engine", "StagedWeightTransferEngine")


class StagingWorker:
    """Mixed into vLLM's worker; its methods are called in every worker by ``collective_rpc``."""

    weight_transfer_engine: StagedWeightTransferEngine
    rank: int
    add_lora: Callable[[LoRARequest], bool]

    def stage_weights(self, version: int, source: dict[str, Any]) -> None:
        """See :meth:`rft.weights.vllm_engine.StagedWeightTransferEngine.stage`."""
        self.weight_transfer_engine.stage(version, source, self.rank)

    def weights_staged(self, version: int) -> tuple[bool, str]:
        """See :meth:`rft.weights.vllm_engine.StagedWeightTransferEngine.staged`."""
        return self.weight_transfer_engine.staged(version)

    def take_adapters(self, version: int) -> str:
        """Use the staged adapters instead of those before, if there were any; what went wrong, or nothing."""
        try:
            with self.weight_transfer_engine.staged_adapters(version) as folder:
                self.add_lora(adapters_request(folder, new=True))
        # An error here would be the engine's end; there the old adapters are still in use.
        except Exception as error:
            return first_line(error)
        return ""

    def forget_weights(self) -> None:
        """See :meth:`rft.weights.vllm_engine.StagedWeightTransferEngine.forget`."""
        self.weight_transfer_engine.forget()
