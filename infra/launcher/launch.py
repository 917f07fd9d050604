"""Carries out one run from its folder to its report: what ``rft run`` does."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError
from rich.console import Console

from consumers.report.build import build_report, write_report
from consumers.report.reducer import RunSummary
from infra.broker import BrokerProcess, open_broker
from infra.hub_downloads import fetch_all, note_revisions, pinned
from infra.launcher.folder import (
    LAUNCHES,
    Launch,
    changed_keys,
    earlier_run,
    launches,
    locked,
    move_aside,
    plan,
    record_launch,
    run_end,
    with_servers,
    write_config,
)
from infra.launcher.interrupts import Interrupts
from infra.launcher.last_lines import LastLines
from infra.launcher.problems import Problem, problems
from infra.launcher.progress import RoleFacts
from infra.launcher.role_notes import note
from infra.launcher.role_processes import RoleProcesses, resident_bytes
from infra.launcher.role_set import BROKER, MakeCommands, limits, role_arguments, role_commands, supervised
from infra.launcher.supervisor import (
    DONE,
    FAILED,
    INTERRUPTED,
    Action,
    End,
    Kill,
    Message,
    Spawn,
    Supervisor,
    Terminate,
)
from infra.launcher.used_topics import refuse_used_topics
from infra.launcher.view import LiveView, PlainView, View
from infra.launcher.watch import Watcher
from infra.preflight.gate import refuse_faults, roles_of_run
from rft.config import Config
from rft.errors import RftError
from rft.log.registry import writer_ids
from rft.log.topics import ensure_topics
from rft.telemetry.notes_file import forget_notes, read_notes

TICK_S = 0.1
LOOK_S = 0.5
"""How often the roles' warnings and errors are looked at."""
UNFINISHED_REPORT_S = 10.0
"""Time for the report of a run that was stopped: the person who stopped it is waiting."""


def launch(
    config: Config,
    *,
    plain: bool = False,
    fresh: bool = False,
    console: Console | None = None,
    make_commands: MakeCommands = role_commands,
) -> int:
    """Run a configuration to its end and return the exit code.

    Raises:
        RftError: It cannot start (folder in use, no model, no broker, wrong topics).
    """
    console = console or Console()
    run = _Run(config, console, plain=plain, make_commands=make_commands)
    with Interrupts() as interrupts, ExitStack() as held:
        try:
            if not run.prepare(held, fresh=fresh):
                return DONE
            return run.carry_out(interrupts)
        except KeyboardInterrupt:
            console.print("interrupted")
            return INTERRUPTED


class _Run:
    def __init__(self, config: Config, console: Console, *, plain: bool, make_commands: MakeCommands) -> None:
        self._config = config
        self._console = console
        self._path = config.run.path
        self._make_commands = make_commands
        self._started = time.monotonic()
        self._started_at = time.time()
        title = f"rft run {config.run.name}"
        self._view: View = PlainView(console, title) if plain or not console.is_terminal else LiveView(console, title)
        self._broker: BrokerProcess | None = None
        self._reason = ""
        """Why the run did not finish."""
        self._processes: RoleProcesses
        self._supervisor: Supervisor

    def prepare(self, held: ExitStack, *, fresh: bool) -> bool:
        """Lock the run's folder and check what can be checked. Return False if there is nothing left to do."""
        config, path = self._config, self._path
        held.enter_context(locked(path))
        todo = plan(config.broker.kind, earlier_run(path), fresh=fresh)
        if todo == "nothing_to_do":
            self._print(
                f"this run is finished already; its report is {path / 'report.html'}. Use --fresh to start over."
            )
            return False
        config = self._config = pinned(asked := config, resumed=todo == "resume")
        # What the checks read. The weights come after them.
        fetch_all(config, self._console, with_weights=False)
        refuse_faults(config, roles_of_run(config), lambda warning: self._print(f"warning: {warning}"))
        if todo == "resume":
            self._print(f"resuming the run in {path}")
            for key in changed_keys(path, config):
                self._print(f"  configuration changed since the last launch: {key}")
            fetch_all(config, self._console)
            note_revisions(asked, config)
            return True
        if config.broker.kind == "external":
            refuse_used_topics(config)
        fetch_all(config, self._console)
        if todo == "replace":
            aside = move_aside(path, Path(config.policy.model), time.time())
            held.enter_context(locked(path))
            why = "its log ended with its broker" if config.broker.kind == "embedded" else "--fresh"
            self._print(f"an earlier run was moved to {aside} ({why})")
        note_revisions(asked, config)
        return True

    def carry_out(self, interrupts: Interrupts) -> int:
        """Run to the end and return the exit code."""
        code = FAILED
        try:
            code = self._with_broker(interrupts)
        except KeyboardInterrupt:
            code = INTERRUPTED
            raise
        finally:
            wall_s = round(time.monotonic() - self._started, 3)
            try:
                record_launch(self._path, Launch(self._started_at, wall_s, code, self._reason))
            except OSError as error:
                self._print(f"{self._path / LAUNCHES} cannot be written: {error.strerror}")
        return code

    def _with_broker(self, interrupts: Interrupts) -> int:
        self._broker = open_broker(self._config, self._path)
        try:
            if self._broker is not None:
                self._print(f"starting the {self._config.broker.kind} broker")
                self._config = with_servers(self._config, self._broker.start())
            self._print(f"broker: {self._config.broker.kind} at {self._config.broker.bootstrap_servers}")
            config_file = write_config(self._path, self._config)
            forget_notes(self._path)
            created = ensure_topics(self._config)
            self._print(f"topics: {len(created)} created, namespace {self._config.log.namespace}")
            if writer_ids(self._config):
                self._print(f"schema registry: {self._config.registry.url} takes our schemas")
            commands = self._make_commands(self._config, config_file)
            self._processes = RoleProcesses(commands, self._path)
            self._supervisor = Supervisor(
                supervised(self._config, list(commands), own_broker=self._broker is not None), limits(self._config)
            )
            self._print(f"roles: {', '.join(role_arguments(self._config))}; their logs are in {self._path / 'logs'}")
            try:
                end = self._supervise(interrupts)
            finally:
                self._processes.kill_all()
            return self._conclude(end)
        finally:
            if self._broker is not None:
                self._broker.stop()

    def _supervise(self, interrupts: Interrupts) -> End:
        """Handle ended roles, due restarts and interrupts until nothing runs any more."""
        supervisor, processes = self._supervisor, self._processes
        shown = 0.0
        with Watcher(self._config) as watcher, self._view, interrupts.deferred():
            end = self._act(supervisor.start(time.monotonic()))
            looked = 0.0
            while end is None:
                time.sleep(TICK_S)
                now = time.monotonic()
                actions = [
                    action
                    for exit in processes.exits()
                    for action in supervisor.exited(
                        exit.name,
                        exit.code,
                        exit.fault,
                        now,
                        outage=exit.outage,
                        idle_s=exit.idle_s,
                        error=exit.error,
                    )
                ]
                actions += self._broker_exit(now)
                if interrupts.take():
                    actions += supervisor.interrupt(now)
                end = self._act(actions + supervisor.tick(now))
                if now - looked >= LOOK_S:
                    looked = now
                    self._view.show_problems(self._problems())
                if now - shown >= self._view.every_s:
                    shown = now
                    self._view.update(watcher.facts, self._role_facts(), now - self._started)
        return end

    def _problems(self) -> list[Problem]:
        return problems(read_notes(self._path))

    def _act(self, actions: list[Action]) -> End | None:
        for action in actions:
            match action:
                case Spawn(name) if name == BROKER:
                    self._restart_broker()
                case Spawn(name):
                    self._processes.spawn(name)
                case Terminate(name):
                    self._processes.terminate(name)
                case Kill(name):
                    self._processes.kill(name)
                case Message(text):
                    self._view.print_line(text)
                case End():
                    return action
        return None

    def _broker_exit(self, now: float) -> list[Action]:
        broker = self._broker
        if broker is None or self._supervisor.roles[BROKER].state != "running" or broker.alive():
            return []
        # An end without a request is a failure, also with exit code 0.
        return self._supervisor.exited(BROKER, broker.exit_code or 1, None, now)

    def _restart_broker(self) -> None:
        """Start the broker again. After a failed start it is dead, which the next tick notices and counts."""
        if self._broker is None:
            return
        try:
            self._broker.start()
        except RftError as error:
            self._view.print_line(f"the broker did not start again: {error}")

    def _conclude(self, end: End) -> int:
        """Print how the run ended, and write the report while the log can still be read."""
        elapsed = time.monotonic() - self._started
        self._reason = "" if end.code in (DONE, INTERRUPTED) else end.reason
        report = self._report(end, elapsed)
        last = LastLines(self._config, self._print, self._problems())
        if end.code == INTERRUPTED:
            last.print_interrupted(elapsed)
        elif end.code != DONE:
            last.print_failed(end, *self._log_of(end))
        elif report is None:
            return FAILED
        else:
            last.print_done(report, elapsed)
        return end.code

    def _log_of(self, end: End) -> tuple[Path | None, list[str]]:
        """Return the log that explains a failure, and its last lines."""
        if end.role is None:
            return None, []
        if end.role == BROKER and self._broker is not None:
            return self._broker.log_path, self._broker.last_lines()
        return self._processes.log_path(end.role), self._processes.last_lines(end.role)

    def _report(self, end: End, elapsed: float) -> dict[str, Any] | None:
        wall_s = elapsed + sum(launch.wall_s for launch in launches(self._path))
        within_s = None if end.code == DONE else UNFINISHED_REPORT_S
        ended = run_end(end.code, self._reason)
        try:
            if self._broker is not None and not self._broker.alive():
                if ended is None or self._config.broker.kind != "embedded":
                    return None
                # The log is gone. The report still says why the run failed.
                return write_report(self._config, RunSummary(complete=False), wall_s=wall_s, end=ended)
            return build_report(self._config, wall_s=wall_s, within_s=within_s, end=ended)
        except (RftError, KafkaError, OSError) as error:
            self._print(f"the report could not be written: {error}")
            return None

    def _role_facts(self) -> list[RoleFacts]:
        stopping = self._supervisor.ending is not None
        facts = []
        for role in self._supervisor.roles.values():
            pid = self._broker.pid if role.name == BROKER and self._broker is not None else None
            memory = resident_bytes(pid) if pid is not None else self._processes.memory_bytes(role.name)
            state = "stopping" if stopping and role.state == "running" and role.name != BROKER else role.state
            says = note(self._processes.health(role.name), time.time())
            facts.append(RoleFacts(role.name, state, role.restarts, memory, says))
        return facts

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
