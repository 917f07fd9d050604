"""The further processes of a trainer, one a rank: started, watched, and ended with it.

A rank's standard input is a pipe that its trainer holds. What to do comes through it as one line of JSON; when it
closes, because the trainer has closed it or is dead, the rank ends.
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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rft.errors import EngineError

GRACE_S = 15.0
"""A trainer that waits within a collective for a rank that is dead is given so long to notice; then it is ended."""
_END_S = 5.0

logger = logging.getLogger(__name__)


class Ranks:
    """Ranks 1, 2, … of a trainer whose own process is rank 0."""

    def __init__(self, count: int, job: dict[str, Any]) -> None:
        """Start all but rank 0. ``job`` is what :mod:`rft.training.engines.worker` reads, but for what is made here."""
        self._folder = Path(tempfile.mkdtemp(prefix="rft-ranks-"))
        self.store = self._folder / "store"
        """Where the ranks meet: a file, so that nothing listens on a port for it."""
        self._closing = False
        self._inside = False
        self._failure: str | None = None
        self._noticed = threading.Event()
        self._processes = [self._start(rank, count, job) for rank in range(1, count)]
        for rank, process in enumerate(self._processes, start=1):
            threading.Thread(target=self._watch, args=(rank, process), name=f"rank-{rank}", daemon=True).start()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around all that the ranks do together: an error that a rank's death caused is told as that.

        Raises EngineError.
        """
        self.check()
        self._inside = True
        try:
            yield
        except RuntimeError as error:
            # The watcher may learn of the death a little later than the broken connection.
            deadline = time.monotonic() + _END_S
            while self._failure is None and time.monotonic() < deadline:
                time.sleep(0.05)
            self.check()
            raise error
        finally:
            self._inside = False

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
            f"rank {rank} of this trainer (process {process.pid}) {how}; the trainer ends and, started again, resumes "
            "from its checkpoint and the redo log. If the system killed it for want of memory, lower "
            "trainer.micro_batch_tokens or raise trainer.zero_stage (`rft doctor` estimates what is needed)"
        )
        self._failure = self._failure or failure
        if self._inside and not self._noticed.wait(GRACE_S) and not self._closing:
            # The main thread hangs in a collective, from which nothing brings it back.
            logger.error("%s: %s", EngineError.__name__, failure)
            os._exit(EngineError.exit_code)


def own_environment(count: int) -> None:
    """The same for the trainer's own process."""
    for variable, value in rank_environment(0, count).items():
        os.environ.setdefault(variable, value)


def rank_environment(rank: int, count: int) -> dict[str, str]:
    """What DeepSpeed and the transports of collectives read from the environment; loopback unless told otherwise."""
    words = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    interface = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface and variable not in os.environ:
            words[variable] = interface
    return words
