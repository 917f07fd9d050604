"""Starts and watches the further processes of a trainer, one for each rank, and ends them with it.

The standard input of a rank is a pipe that its trainer holds. The rank reads its job from it as one line of JSON. When
the pipe closes, because the trainer closed it or died, the rank ends.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rft.errors import EngineError

GRACE_S = 15.0
"""Seconds in which a trainer must notice that a rank died. If it hangs in a collective with that rank, nothing else can
wake it, so its process is ended after this time."""
_END_S = 5.0
"""Seconds to wait for a rank to end, or for the watcher to see that it has."""

logger = logging.getLogger(__name__)


class RankProcesses:
    """Ranks 1, 2, … of a trainer whose own process is rank 0."""

    def __init__(self, count: int, job: dict[str, Any]) -> None:
        """Start ranks 1 … count - 1.

        Args:
            job: what :mod:`rft.training.engines.worker` reads, without ``rank``, ``ranks`` and ``store``.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="rft-ranks-"))
        self.store = self._folder / "store"
        """File through which the ranks find each other, so that no port is needed for it."""
        self._closing = False
        self._in_collective = False
        self._failure: str | None = None
        self._failed = threading.Event()
        self._noticed = threading.Event()
        self._processes = [self._start(rank, count, job) for rank in range(1, count)]
        for rank, process in enumerate(self._processes, start=1):
            threading.Thread(target=self._watch, args=(rank, process), name=f"rank-{rank}", daemon=True).start()

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Run a block that the ranks take part in together.

        When a rank dies, the others see a broken connection, a RuntimeError. If that is the cause, EngineError is
        raised instead, and names the rank.
        """
        self.check()
        self._in_collective = True
        try:
            yield
        except RuntimeError as error:
            # The watcher may learn of the death a little later than the broken connection shows it.
            self._failed.wait(_END_S)
            self.check()
            raise error
        finally:
            self._in_collective = False

    def check(self) -> None:
        """Raise EngineError if a rank has died."""
        if self._failure is not None:
            self._noticed.set()
            raise EngineError(self._failure)

    def close(self) -> None:
        """End all ranks and wait for them."""
        self._closing = True
        self._noticed.set()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, rank: int, count: int, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rft.training.engines.worker"],
            stdin=subprocess.PIPE,
            env=os.environ | rank_environment(rank, count),
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(job | {"rank": rank, "ranks": count, "store": str(self.store)}).encode() + b"\n")
        process.stdin.flush()
        return process

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._closing:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        failure = (
            f"rank {rank} of this trainer (process {process.pid}) {how}, so the trainer ends. Start it again to resume "
            "from its checkpoint and the redo log. If the system killed the rank because memory ran out, lower "
            "trainer.micro_batch_tokens or raise trainer.zero_stage (`rft doctor` estimates what is needed)"
        )
        self._failure = self._failure or failure
        self._failed.set()
        if self._in_collective and not self._noticed.wait(GRACE_S) and not self._closing:
            # The main thread hangs in a collective, and nothing can wake it.
            logger.error("%s: %s", EngineError.__name__, failure)
            os._exit(EngineError.exit_code)


def set_own_environment(count: int) -> None:
    """Set the variables of :func:`rank_environment` for the trainer's own process. Existing ones are kept."""
    for variable, value in rank_environment(0, count).items():
        os.environ.setdefault(variable, value)


def rank_environment(rank: int, count: int) -> dict[str, str]:
    """Return the environment variables that DeepSpeed and the collectives' transports read.

    The network interface is loopback unless the environment names another.
    """
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    interface = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface and variable not in os.environ:
            variables[variable] = interface
    return variables
