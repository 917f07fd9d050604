"""What all roles share as processes: logging, stopping on a signal, and one clear line when they fail."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from infra.log_rate_limit import RateLimitFilter
from rft.config import Config
from rft.errors import BrokerError, RegistryUnreachableError, RftError
from rft.log.clients import bootstrap_servers
from rft.log.probe import probe

RunFunction = Callable[[Config, threading.Event], None]


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """Where a role lives; imported only when it runs, for some import torch or Faust."""

    module: str
    purpose: str


ROLES = {
    "conductor": RoleEntry("producers.conductor", "issues tasks, paced by what the trainer has retired"),
    "explorer": RoleEntry("producers.explorer", "rolls tasks out with the newest weights and publishes experiences"),
    "processor": RoleEntry("consumers.processors", "cleans, scores and groups experiences (a Faust worker)"),
    "trainer": RoleEntry("consumers.trainer", "learns from ready groups and announces new weights"),
    "importer": RoleEntry("producers.importer", "publishes what [[imports]] names: tasks, demonstrations, preferences"),
    "tracker": RoleEntry("consumers.tracker", "shows steps and evaluations in trackers"),
    "archiver": RoleEntry("consumers.archiver", "copies the topics into Avro files while they are written"),
}

# Their notices of every reconnection bury our own lines.
_QUIET = ("kafka", "aiokafka", "faust", "mode", "transformers", "urllib3", "asyncio", "filelock", "DeepSpeed")
_STARTS = "starts as process"
_PASSING = (BrokerError.__name__, RegistryUnreachableError.__name__)
_ERROR_LINE = re.compile(r" ERROR \S+: ([A-Za-z]+Error: .*)$")


def run_role(role: str, config: Config, run: RunFunction | None = None) -> int:
    """Run one role until it is done or told to stop; returns the process's exit code.

    SIGTERM and SIGINT set the role's stop event. An :class:`RftError` becomes one line
    ``<time> ERROR <name>: <class>: <message>`` on stderr and its own exit code; anything else is a bug and
    shows its traceback.
    """
    name = os.environ.get("RFT_ROLE_NAME", role)
    configure_logging(name)
    log = logging.getLogger("rft")
    stop = threading.Event()
    asked_by: list[int] = []

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        asked_by.append(number)
        stop.set()
        if number == signal.SIGINT and asked_by.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        log.info("%s %d", _STARTS, os.getpid())
        if run is None:
            # Before the imports, which take longer than finding out that there is no broker.
            probe(config.broker, bootstrap_servers(config))
        function = run or importlib.import_module(ROLES[role].module).run
        function(config, stop)
    except RftError as error:
        log.error("%s: %s", type(error).__name__, " ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    log.info("stopped" if asked_by else "done")
    return 130 if signal.SIGINT in asked_by else 0


def configure_logging(name: str) -> None:
    """Lines ``time level name: message`` on stderr, UTC with milliseconds."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {name}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(RateLimitFilter("kafka", "aiokafka"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(os.environ.get("RFT_LOG_LEVEL", "INFO"))
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Warns of every 0.1 s that its thread did not get the processor.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)


def lasting_error(lines: Sequence[str]) -> str | None:
    """The fault that a role named since its last start, if trying again is unlikely to cure it.

    A broker or registry that cannot be reached may come back, so that is none.
    """
    for line in reversed(lines):
        found = _ERROR_LINE.search(line)
        if found:
            return None if found[1].partition(":")[0] in _PASSING else found[1]
        if _STARTS in line:
            return None
    return None
