"""The extension of vLLM's workers. Only the workers of an engine import this module.

Importing it ties the engine's life to the explorer's: however the explorer ends, ``kill -9`` included, its engine ends
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
from typing import TYPE_CHECKING

from vllm.distributed.weight_transfer import WeightTransferEngineFactory

from rft.errors import first_line
from rft.policy.vllm.engine_start import EXPLORER, TRANSFER_BACKEND
from rft.policy.vllm.update import WeightSource, lora_request

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from rft.policy.vllm.weight_transfer import StagedWeightTransferEngine

PR_SET_PDEATHSIG = 1


def end_with_explorer() -> None:
    """Make this process and the engine's core end with the explorer (on Linux). No-op in a program's main process."""
    core = multiprocessing.parent_process()
    if core is None or core.pid is None or EXPLORER not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    explorer = int(os.environ[EXPLORER])
    threading.Thread(target=_watch, args=(explorer, core.pid), name="explorer-watch", daemon=True).start()


def _watch(explorer: int, core: int) -> None:
    try:
        watched = os.pidfd_open(explorer)
    except ProcessLookupError:
        pass
    else:
        select.select([watched], [], [])
    # The core is our parent as long as it lives; afterwards its process id may belong to another process.
    if core != explorer and os.getppid() == core:
        os.kill(core, signal.SIGKILL)
    os._exit(1)


end_with_explorer()
WeightTransferEngineFactory.register_engine(
    TRANSFER_BACKEND, "rft.policy.vllm.weight_transfer", "StagedWeightTransferEngine"
)


class StagingWorker:
    """A mixin for vLLM's worker. ``collective_rpc`` calls its methods in every worker."""

    weight_transfer_engine: StagedWeightTransferEngine
    rank: int
    add_lora: Callable[[LoRARequest], bool]

    def stage_weights(self, version: int, source: WeightSource) -> None:
        """See :meth:`rft.policy.vllm.weight_transfer.StagedWeightTransferEngine.stage`."""
        self.weight_transfer_engine.stage(version, source, self.rank)

    def staging_state(self, version: int) -> tuple[bool, str]:
        """See :meth:`rft.policy.vllm.weight_transfer.StagedWeightTransferEngine.state`."""
        return self.weight_transfer_engine.state(version)

    def load_staged_adapters(self, version: int) -> str:
        """Load the staged adapters in place of the previous ones. Return what failed, or the empty string."""
        try:
            with self.weight_transfer_engine.adapters_folder(version) as folder:
                self.add_lora(lora_request(folder, load=True))
        # Raising would end the engine, which still has the old adapters in use.
        except Exception as error:
            return first_line(error)
        return ""

    def drop_staged_weights(self) -> None:
        """See :meth:`rft.policy.vllm.weight_transfer.StagedWeightTransferEngine.drop`."""
        self.weight_transfer_engine.drop()
