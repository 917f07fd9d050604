"""Makes a run's log reachable for commands that read it: during the run, and after a run with a local Kafka node.

The log of such a run lies in its folder, and its node ends with it. A command then starts the node on the run's own
data and stops it afterwards. The lock of the run's folder keeps a second node off the same data.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from infra.broker import open_broker
from infra.kafka_node import KAFKA_DATA, holds_log
from infra.launcher.folder import (
    LOCK,
    RESOLVED,
    RUN,
    FolderInUseError,
    announced_servers,
    locked,
    with_running_broker,
    with_servers,
)
from rft.config import Config
from rft.errors import BrokerError
from rft.retry import Deadline

WAIT_S = 60.0
"""How long to wait for another command, or for a run that is just starting. Most commands take seconds."""
_PAUSE_S = 0.2
_SETTINGS = {"log.initial.task.delay.ms": str(7 * 24 * 3_600_000)}
"""Kafka begins to delete what is older than the retention 30 s after its start. Reading must not delete anything."""
_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def reachable_log(
    config: Config, command: str, *, archive: str | None = None, create: bool = False, wait_s: float = WAIT_S
) -> Iterator[Config]:
    """Yield the configuration with the address of a broker that serves the run's log.

    With ``broker.kind = "kafka"`` this starts the node if no run does, and stops it at the end. With another broker,
    and if an ``archive`` is read, it starts nothing.

    Args:
        command: Shown to others that wait for the run's folder, as ``rft audit``.
        create: Start a node although there is no log yet.

    Raises:
        BrokerError: There is no log in the run's folder, or the node cannot be started.
        FolderInUseError: Another command has used the node for longer than ``wait_s``.
        RunFolderError: The run's folder cannot be written.
    """
    if config.broker.kind != "kafka" or config.broker.bootstrap_servers or archive is not None:
        yield with_running_broker(config)
        return
    data = config.run.path / KAFKA_DATA
    if not create and not holds_log(data):
        raise BrokerError(
            f"there is no log in {data}: no `rft run` with this run.folder and run.name has begun here. Start it, or "
            "name the run, an archive (--archive) or a cluster (broker.kind = 'external', broker.bootstrap_servers)"
        )
    with ExitStack() as held:
        servers = _lock_or_find_servers(config.run.path, command, held, wait_s)
        if servers is not None:
            yield with_servers(config, servers)
            return
        broker = open_broker(config, config.run.path, _SETTINGS)
        assert broker is not None
        held.enter_context(_exit_on_sigterm())
        held.callback(broker.stop)
        print(f"{command}: no run is in progress; starting its Kafka node on {data}", file=sys.stderr)
        yield with_servers(config, broker.start())


def _lock_or_find_servers(path: Path, command: str, held: ExitStack, wait_s: float) -> str | None:
    """Lock the run's folder and return None, or return the servers of the run that holds it.

    Waits while another command holds it, or while a run has not started its broker yet.
    """
    deadline, waits = Deadline(wait_s), False
    while True:
        try:
            held.enter_context(locked(path, command))
            return None
        except FolderInUseError as error:
            if error.command == RUN and _has_announced(path) and (servers := announced_servers(path)):
                return servers
            if deadline.passed:
                raise
            if not waits:
                print(f"{command} waits: {error}", file=sys.stderr)
                waits = True
        time.sleep(_PAUSE_S)


def _has_announced(path: Path) -> bool:
    """Return whether the run that holds the lock has started its broker: it writes the address down after that."""
    try:
        return (path / RESOLVED).stat().st_mtime_ns >= (path / LOCK).stat().st_mtime_ns
    except FileNotFoundError:
        return False


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that the node is stopped. Only possible in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
