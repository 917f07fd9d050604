"""Runs a role as a process: logging, stopping on a signal, and one clear line when it fails."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from infra.activity_report import ActivityReport
from infra.exit_report import EXIT_FILE_VARIABLE, ExitReport, write_exit_report
from infra.hub_downloads import for_role
from infra.library_noise import quiet_libraries
from infra.log_rate_limit import RateLimitFilter
from infra.process_end import END_S, end_within
from infra.stall_check import StallCheck
from infra.topic_watch import TopicWatch
from rft.config import Config
from rft.errors import HubError, OutageError, RftError, StallError, TopicChangedError
from rft.log.access import prepare_topics
from rft.log.client_names import name_clients
from rft.log.clients import reach_broker
from rft.log.outages import wait_for_broker
from rft.telemetry.activity import role_activity
from rft.telemetry.notes import NoteHandler, role_notes
from rft.telemetry.notes_file import NotesFile

RunFunction = Callable[[Config, threading.Event], None]


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """A role's module and purpose. The module is imported only when the role runs: some import torch or Faust."""

    module: str
    purpose: str


ROLES = {
    "conductor": RoleEntry("producers.conductor", "issues tasks, paced by what the trainer has retired"),
    "explorer": RoleEntry("producers.explorer", "rolls tasks out with the newest weights and publishes experiences"),
    "processor": RoleEntry("consumers.processors", "cleans, scores and groups experiences (a Faust worker)"),
    "rewarder": RoleEntry("producers.rewarder", "rewards experiences by a judge, a sandbox, a model or own functions"),
    "trainer": RoleEntry("consumers.trainer", "learns from ready groups and announces new weights"),
    "gateway": RoleEntry("producers.gateway", "serves agents that come by themselves, and publishes what they do"),
    "importer": RoleEntry("producers.importer", "publishes what [[imports]] names: tasks, demonstrations, preferences"),
    "tracker": RoleEntry("consumers.tracker", "shows steps and evaluations in trackers"),
    "archiver": RoleEntry("consumers.archiver", "copies the topics into Avro files while they are written"),
}

_BUG_EXIT_CODE = 1
"""Python's own for an exception that nothing catches."""


def run_role(role: str, config: Config, run: RunFunction | None = None) -> int:
    """Run one role until it is done or asked to stop, and return the process's exit code.

    SIGTERM and SIGINT set the role's stop event. An :class:`RftError` becomes one line
    ``<time> ERROR <name>: <class>: <message>`` on stderr and its own exit code. Anything else is a bug and
    shows its traceback. Both are reported in the file that ``RFT_EXIT_FILE`` names, if it names one.

    The caller must end the process with the exit code. Threads that libraries have left cannot keep it alive for longer
    than ``END_S``.
    """
    exit_code = _BUG_EXIT_CODE
    try:
        exit_code = _run(role, config, run)
    finally:
        end_within(END_S, exit_code)
    return exit_code


def _run(role: str, config: Config, run: RunFunction | None) -> int:
    name = os.environ.get("RFT_ROLE_NAME", role)
    # Taken out: a child of the role must not report its own end there.
    exit_file = os.environ.pop(EXIT_FILE_VARIABLE, None)
    configure_logging(name)
    log = logging.getLogger("rft")
    notes = NotesFile(config.run.path, _unique(name), role_notes())
    stop = threading.Event()
    asked_by: list[int] = []
    signals: SimpleQueue[int] = SimpleQueue()

    def set_stop() -> None:
        signals.get()
        stop.set()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        asked_by.append(number)
        # The handler must not set the event itself: that takes a lock, which the wait that it interrupts may hold.
        signals.put(number)
        if number == signal.SIGINT and asked_by.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    def end_at_once(error: TopicChangedError) -> None:
        log.error("%s: %s (the role did not stop in time)", type(error).__name__, error)
        notes.write()
        _report_exit(exit_file, error, error.exit_code)
        end_within(0, error.exit_code)

    def end_stalled(error: StallError, place: str, idle_s: float) -> None:
        log.error("%s: %s", type(error).__name__, error)
        notes.write()
        report = ExitReport.from_error(error, exit_code=error.exit_code, pid=os.getpid(), now=time.time())
        _write_report(exit_file, replace(report, place=place, idle_s=idle_s))
        logging.shutdown()
        os._exit(error.exit_code)

    threading.Thread(target=set_stop, name="stop", daemon=True).start()
    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        log.info("starts as process %d", os.getpid())
        name_clients(role)
        if run is None:
            # Before the imports, which take longer than finding out that there is no broker.
            reach_broker(config)
        wait_for_broker(config.broker.outage_s, stop)
        if run is None and not config.log.manage_topics:
            prepare_topics(config, role)
        function = run or importlib.import_module(ROLES[role].module).run
        with contextlib.ExitStack() as watches:
            if run is None:
                activity = role_activity()
                check = StallCheck(config, name, activity, end_stalled)
                report = ActivityReport(
                    config, _unique(name), activity, notes, stopping=stop.is_set, stalled=lambda: check.stalled
                )
                for watch in (report, check, TopicWatch(config, stop, end_at_once)):
                    watches.enter_context(watch)
                config = for_role(role, config, stop)
            function(config, stop)
    except RftError as error:
        if asked_by and isinstance(error, HubError):
            log.warning("stopped during a download, which is resumed where it was")
            return 130 if signal.SIGINT in asked_by else 0
        if asked_by and isinstance(error, OutageError):
            log.warning("stopped while the broker was away: %s", " ".join(str(error).split()))
            return 130 if signal.SIGINT in asked_by else 0
        log.error("%s: %s", type(error).__name__, " ".join(str(error).split()))
        _report_exit(exit_file, error, error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        role_notes().add("error", f"{type(error).__name__}: {error}")
        _report_exit(exit_file, error, _BUG_EXIT_CODE)
        raise
    finally:
        notes.close()
    log.info("stopped" if asked_by else "done")
    return 130 if signal.SIGINT in asked_by else 0


def _report_exit(exit_file: str | None, error: Exception, exit_code: int) -> None:
    """Write the exit report. A full disk must not hide the error and the exit code, so it is only logged."""
    _write_report(exit_file, ExitReport.from_error(error, exit_code=exit_code, pid=os.getpid(), now=time.time()))


def _write_report(exit_file: str | None, report: ExitReport) -> None:
    if exit_file is None:
        return
    try:
        write_exit_report(Path(exit_file), report)
    except OSError as unwritable:
        logging.getLogger("rft").warning("the exit report %s cannot be written: %s", exit_file, unwritable.strerror)


def _unique(name: str) -> str:
    """Return a role's name in files that several machines may share. The launcher's names are unique as they are."""
    return name if "RFT_ROLE_NAME" in os.environ else f"{name}-{platform.node()}-{os.getpid()}"


def configure_logging(name: str) -> None:
    """Log lines ``time level name: message`` to stderr, UTC with milliseconds."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {name}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(RateLimitFilter("kafka", "aiokafka"))
    root = logging.getLogger()
    root.handlers[:] = [handler, NoteHandler(role_notes())]
    root.setLevel(os.environ.get("RFT_LOG_LEVEL", "INFO"))
    quiet_libraries()
