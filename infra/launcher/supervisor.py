"""Decides what happens when a role ends: it is restarted, it is left alone, or the run ends (pure).

Times come in and actions go out; there are no processes and no clock here. :mod:`infra.launcher.role_processes` carries
the actions out.

A run ends well when its conductor and its further trainers have ended well: the conductor makes the last evaluation,
and a further trainer may be slower than the one that paces the run. A run fails when a role reports bad configuration,
says that a restart cannot help, has the same fault twice in a row within ``restart_window_s``, or dies more often than
``restart_limit`` within that time.

A role that ends only because the broker is away is started again until the broker answers. Such restarts do not count.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from rft.retry import Backoff

LONGEST_BACKOFF_S = 30.0
OUTAGE_PAUSE_S = 2.0
"""Before a role is started again that found the broker away. It then tries for ``broker.connect_timeout_s``."""
DONE, FAILED, BAD_CONFIGURATION, STAYS_DOWN, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of roles and runs. A role that exits with ``STAYS_DOWN`` must not be started again."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the role."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the role to stop (SIGTERM)."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the role."""

    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the operator."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing runs any more. ``role`` names the role whose last lines explain a failure."""

    code: int
    reason: str
    role: str | None = None
    told: bool = False
    """Whether the reason holds the error that the role reported, so that its log adds little."""


Action = Spawn | Terminate | Kill | Message | End
State = Literal["new", "running", "waiting", "done", "ended"]
OnSuccess = Literal["restart", "leave", "end_run"]


@dataclass(slots=True)
class Role:
    """One supervised process."""

    name: str
    on_success: OnSuccess = "restart"
    """What to do when it exits with 0 without having been asked to stop."""
    restartable: bool = True
    """False for the embedded broker: its log is lost."""
    outlives_roles: bool = False
    """True for the broker: the launcher stops it after the roles."""
    stops_last: bool = False
    """True for archiver and tracker: they stop after the other roles, because they read their last events too."""
    essential: bool = True
    """False for the tracker: the run goes on without it if it keeps failing."""
    state: State = "new"
    deaths: list[float] = field(default_factory=list)
    """Times of the restarts within ``restart_window_s``."""
    restarts: int = 0
    """Number of all restarts."""
    due: float = 0.0
    """Time of the next start, while it waits."""
    last_fault: str | None = None
    """Class and place of the lasting error that it ended with last."""
    last_fault_at: float = 0.0
    outage_since: float | None = None
    """Since when it has ended only because the broker is away."""
    spawned_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of ``[launcher]`` for restarts and stops."""

    restart_limit: int
    restart_window_s: float
    backoff_s: float
    stop_timeout_s: float
    outage_s: float = 0.0
    """``broker.outage_s``; 0 has no limit."""


class Supervisor:
    """The state machine. Each method takes the time in seconds and returns what to do now."""

    def __init__(self, roles: Iterable[Role], limits: Limits) -> None:
        self.roles = {role.name: role for role in roles}
        self.limits = limits
        self.ending: End | None = None
        """How the run ends when all roles have stopped; None while it goes on."""
        self._deadline = 0.0
        """When roles that have not stopped are killed."""
        self._killed = False
        self._last_roles_stopping = False
        """Whether the roles that stop last were asked to stop."""

    def start(self, now: float) -> list[Action]:
        """Start all roles that do not run yet."""
        return [self._spawn(role, now) for role in self.roles.values() if role.state == "new"]

    def exited(
        self,
        name: str,
        code: int,
        fault: str | None,
        now: float,
        *,
        outage: bool = False,
        idle_s: float = 0.0,
        error: str = "",
    ) -> list[Action]:
        """Handle the end of a role.

        Args:
            fault: Class and place of the lasting error that it reported; None if it reported none.
            outage: Whether it ended only because the broker is away.
            idle_s: How long it had stood still before: the fault is as old as that.
            error: The error that it reported, with its message; empty if it reported none.
        """
        role = self.roles[name]
        if self.ending is not None:
            role.state = "ended"
            return self._stop_next(now)
        if code == DONE and role.on_success != "restart":
            role.state = "done"
            return self._stop_all(End(DONE, "done"), now) if self._all_done() else []
        role.state = "ended"
        what = describe_exit(code, idle_s) + (f" ({error})" if error else "")
        if outage and code != STAYS_DOWN:
            return self._wait_for_broker(role, now)
        role.outage_since = None
        again = (
            fault is not None
            and fault == role.last_fault
            and now - idle_s - role.last_fault_at < self.limits.restart_window_s
        )
        role.last_fault, role.last_fault_at = fault, now
        if not role.essential and (code in (BAD_CONFIGURATION, STAYS_DOWN) or again):
            return [_left_out_message(role, what)]
        if code == BAD_CONFIGURATION:
            reason = f"{name} found the configuration wrong" + (f": {error}" if error else "")
            return self._stop_all(End(BAD_CONFIGURATION, reason, name, bool(error)), now)
        if code == STAYS_DOWN:
            reason = f"{name}: {error}" if error else f"{name} ended and must not be started again"
            return self._stop_all(End(FAILED, reason, name, bool(error)), now)
        if not role.restartable:
            return self._stop_all(End(FAILED, f"{name} {what} and cannot be restarted", name), now)
        if again:
            reason = f"{name} failed twice with the same error: it {what}"
            return self._stop_all(End(FAILED, reason, name, bool(error)), now)
        return self._restart_or_give_up(role, what, now, told=bool(error))

    def tick(self, now: float) -> list[Action]:
        """Start the roles that are due, and kill those that did not stop in time."""
        if self.ending is None:
            due = [role for role in self.roles.values() if role.state == "waiting" and role.due <= now]
            return [self._spawn(role, now) for role in due]
        if now >= self._deadline and not self._killed:
            late = self._stopping()
            self._killed = True
            names = ", ".join(role.name for role in late)
            text = f"{names} did not stop within {self.limits.stop_timeout_s:g} s and will be killed"
            return [Message(text), *(Kill(role.name) for role in late)]
        return []

    def interrupt(self, now: float) -> list[Action]:
        """Handle Ctrl-C: the first stops cleanly, another one kills."""
        if self.ending is None:
            message = Message("stopping; Ctrl-C again kills at once")
            return [message, *self._stop_all(End(INTERRUPTED, "interrupted"), now)]
        self.ending = End(INTERRUPTED, "interrupted")
        self._killed = self._last_roles_stopping = True
        return [Kill(role.name) for role in self._alive()]

    def _all_done(self) -> bool:
        """Return whether all roles whose success ends the run have ended well."""
        return all(role.state == "done" for role in self.roles.values() if role.on_success == "end_run")

    def _restart_or_give_up(self, role: Role, what: str, now: float, *, told: bool) -> list[Action]:
        limits = self.limits
        role.deaths = [at for at in role.deaths if now - at < limits.restart_window_s]
        if len(role.deaths) >= limits.restart_limit and not role.essential:
            return [_left_out_message(role, what)]
        if len(role.deaths) >= limits.restart_limit:
            reason = f"{role.name} {what}; " + (
                f"it was restarted {len(role.deaths)} times within {limits.restart_window_s:g} s"
                if limits.restart_limit
                else "launcher.restart_limit is 0"
            )
            return self._stop_all(End(FAILED, reason, role.name, told), now)
        role.deaths.append(now)
        delay = Backoff(limits.backoff_s, 2.0, LONGEST_BACKOFF_S).pause_s(len(role.deaths))
        role.state, role.due = "waiting", now + delay
        nth = f"restart {len(role.deaths)} of at most {limits.restart_limit}"
        return [Message(f"{role.name} {what}; {nth} in {delay:g} s")]

    def _wait_for_broker(self, role: Role, now: float) -> list[Action]:
        limit = self.limits.outage_s
        if role.outage_since is not None and now - role.spawned_at > self.limits.restart_window_s:
            role.outage_since = None  # it ran for long since: this is another outage
        message = Message(f"{role.name} found the broker away; it is started again until the broker answers")
        messages: list[Action] = [message] if role.outage_since is None else []
        if role.outage_since is None:
            role.outage_since = now
        if limit and now - role.outage_since >= limit:
            reason = f"{role.name} has not reached the broker for {limit:g} s (broker.outage_s)"
            return [*messages, *self._stop_all(End(FAILED, reason, role.name), now)]
        role.state, role.due = "waiting", now + OUTAGE_PAUSE_S
        return messages

    def _spawn(self, role: Role, now: float) -> Spawn:
        role.restarts += role.state == "waiting"
        role.state, role.spawned_at = "running", now
        return Spawn(role.name)

    def _stop_all(self, ending: End, now: float) -> list[Action]:
        self.ending = ending
        self._deadline = now + self.limits.stop_timeout_s
        for role in self.roles.values():
            if role.state == "waiting":
                role.state = "ended"
        return [Terminate(role.name) for role in self._stopping()] or self._stop_next(now)

    def _stop_next(self, now: float) -> list[Action]:
        """When the other roles have stopped, stop the last ones; when these have stopped too, end the run."""
        if self._stopping():
            return []
        if not self._last_roles_stopping:
            self._last_roles_stopping, self._killed = True, False
            self._deadline = now + self.limits.stop_timeout_s
            if last := self._stopping():
                return [Terminate(role.name) for role in last]
        return [] if self.ending is None else [self.ending]

    def _stopping(self) -> list[Role]:
        """Return the roles that were asked to stop and still run."""
        return [role for role in self._alive() if self._last_roles_stopping or not role.stops_last]

    def _alive(self) -> list[Role]:
        return [role for role in self.roles.values() if role.state == "running" and not role.outlives_roles]


def _left_out_message(role: Role, what: str) -> Message:
    return Message(f"{role.name} {what} and is not started again; the run goes on without it")


def describe_exit(code: int, idle_s: float = 0.0) -> str:
    """Return ``ended with exit code 1`` or ``was killed by SIGKILL``; for a stall, how long the role stood still."""
    if idle_s:
        return f"ended because it made no progress for {idle_s:.0f} s (its log says what it was doing)"
    if code == DONE:
        return "ended without being asked to"
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
