"""Decides what becomes of roles that end: restarted, left alone, or the end of the run.

No processes and no clock in here: times come in, actions go out. :mod:`infra.launcher.role_processes` carries them out.

A run ends well when its conductor and its further trainers have ended well: the conductor makes the last evaluation,
and a further trainer may be slower than the one that paces the run. Ways for it to end badly:
a role reports bad configuration, fails twice in a row with the same error, or dies more often than
``restart_limit`` within ``restart_window_s``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

LONGEST_BACKOFF_S = 30.0
DONE, FAILED, BAD_CONFIGURATION, STAYS_DOWN, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of roles and runs; with ``STAYS_DOWN`` a role says that it must not be started again."""


@dataclass(frozen=True, slots=True)
class Spawn:
    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the role to stop (SIGTERM)."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    name: str


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the operator."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing runs any more. ``role`` names the one whose last lines explain a failure."""

    code: int
    reason: str
    role: str | None = None


Action = Spawn | Terminate | Kill | Say | End
State = Literal["new", "running", "waiting", "done", "ended"]
OnSuccess = Literal["restart", "leave", "end_run"]


@dataclass(slots=True)
class Role:
    """One supervised process.

    ``on_success``: what an exit with 0, unasked, means. ``restartable`` is False for what cannot come back.
    """

    name: str
    on_success: OnSuccess = "restart"
    restartable: bool = True
    outlives_roles: bool = False
    """True for the broker: it is not stopped with the roles but after them, by others."""
    stops_last: bool = False
    """True for archiver and tracker: asked to stop when the other roles have, for they read their last events too."""
    essential: bool = True
    """False for the tracker: the run goes on without it when it does not stay up."""
    state: State = "new"
    deaths: list[float] = field(default_factory=list)
    """Times of the restarts that still count."""
    restarts: int = 0
    """All restarts so far."""
    due: float = 0.0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    restart_limit: int
    restart_window_s: float
    backoff_s: float
    stop_timeout_s: float


class Supervisor:
    """The state machine. Every method takes the time in seconds and returns what to do now."""

    def __init__(self, roles: Iterable[Role], limits: Limits) -> None:
        self.roles = {role.name: role for role in roles}
        self.limits = limits
        self.ending: End | None = None
        """How the run will have ended once all roles have stopped."""
        self._deadline = 0.0
        self._killed = False
        self._last_asked = False
        """Whether those that stop last were asked to."""

    def start(self, now: float) -> list[Action]:
        """Start everything that does not run yet."""
        return [self._spawn(role) for role in self.roles.values() if role.state == "new"]

    def exited(self, name: str, code: int, error: str | None, now: float) -> list[Action]:
        """A role ended. ``error`` is the lasting fault that it reported, None if it named none."""
        role = self.roles[name]
        if self.ending is not None:
            role.state = "ended"
            return self._stop_next(now)
        if code == DONE and role.on_success != "restart":
            role.state = "done"
            return self._finish(End(DONE, "done"), now) if self._all_done() else []
        role.state = "ended"
        if not role.essential and (code in (BAD_CONFIGURATION, STAYS_DOWN) or (error and error == role.last_error)):
            return [_without(role, code)]
        if code == BAD_CONFIGURATION:
            return self._finish(End(BAD_CONFIGURATION, f"{name} found the configuration wrong", name), now)
        if code == STAYS_DOWN:
            return self._finish(End(FAILED, f"{name} must not be started again as things are", name), now)
        if not role.restartable:
            return self._finish(End(FAILED, f"{name} {how_it_ended(code)} and cannot be restarted", name), now)
        if error is not None and error == role.last_error:
            return self._finish(End(FAILED, f"{name} failed twice with the same error", name), now)
        role.last_error = error
        return self._restart_or_give_up(role, code, now)

    def tick(self, now: float) -> list[Action]:
        """Start what is due; kill what did not stop in time."""
        if self.ending is None:
            return [self._spawn(role) for role in self.roles.values() if role.state == "waiting" and role.due <= now]
        if now >= self._deadline and not self._killed:
            late = self._asked()
            self._killed = True
            names = ", ".join(role.name for role in late)
            text = f"{names} did not stop within {self.limits.stop_timeout_s:g} s and will be killed"
            return [Say(text), *(Kill(role.name) for role in late)]
        return []

    def interrupt(self, now: float) -> list[Action]:
        """Ctrl-C: the first stops cleanly, a further one kills."""
        if self.ending is None:
            say = Say("stopping; Ctrl-C again kills at once")
            return [say, *self._finish(End(INTERRUPTED, "interrupted"), now)]
        self.ending = End(INTERRUPTED, "interrupted")
        self._killed = self._last_asked = True
        return [Kill(role.name) for role in self._alive()]

    def _all_done(self) -> bool:
        """Whether everything that the run is there for has ended well."""
        return all(role.state == "done" for role in self.roles.values() if role.on_success == "end_run")

    def _restart_or_give_up(self, role: Role, code: int, now: float) -> list[Action]:
        limits = self.limits
        role.deaths = [at for at in role.deaths if now - at < limits.restart_window_s]
        if len(role.deaths) >= limits.restart_limit and not role.essential:
            return [_without(role, code)]
        if len(role.deaths) >= limits.restart_limit:
            reason = f"{role.name} {how_it_ended(code)}; " + (
                f"it was restarted {len(role.deaths)} times within {limits.restart_window_s:g} s"
                if limits.restart_limit
                else "launcher.restart_limit is 0"
            )
            return self._finish(End(FAILED, reason, role.name), now)
        delay = min(LONGEST_BACKOFF_S, limits.backoff_s * 2 ** len(role.deaths))
        role.deaths.append(now)
        role.state, role.due = "waiting", now + delay
        nth = f"restart {len(role.deaths)} of at most {limits.restart_limit}"
        return [Say(f"{role.name} {how_it_ended(code)}; {nth} in {delay:g} s")]

    def _spawn(self, role: Role) -> Spawn:
        role.restarts += role.state == "waiting"
        role.state = "running"
        return Spawn(role.name)

    def _finish(self, ending: End, now: float) -> list[Action]:
        self.ending = ending
        self._deadline = now + self.limits.stop_timeout_s
        for role in self.roles.values():
            if role.state == "waiting":
                role.state = "ended"
        return [Terminate(role.name) for role in self._asked()] or self._stop_next(now)

    def _stop_next(self, now: float) -> list[Action]:
        """When the first have stopped, ask the last; when these have too, it is over."""
        if self._asked():
            return []
        if not self._last_asked:
            self._last_asked, self._killed = True, False
            self._deadline = now + self.limits.stop_timeout_s
            if last := self._asked():
                return [Terminate(role.name) for role in last]
        return [] if self.ending is None else [self.ending]

    def _asked(self) -> list[Role]:
        """Those that were asked to stop and still run."""
        return [role for role in self._alive() if self._last_asked or not role.stops_last]

    def _alive(self) -> list[Role]:
        return [role for role in self.roles.values() if role.state == "running" and not role.outlives_roles]


def _without(role: Role, code: int) -> Say:
    return Say(f"{role.name} {how_it_ended(code)} and is not started again; the run goes on without it")


def how_it_ended(code: int) -> str:
    """``ended with exit code 1`` or ``was killed by SIGKILL``."""
    if code == DONE:
        return "ended without being asked to"
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
