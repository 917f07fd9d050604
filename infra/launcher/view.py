"""Shows a run while it goes on: one screen on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from consumers.report.measures import NOT_SCORED, score_text
from infra.launcher.formats import clock, recent_mean
from infra.launcher.problems import NewProblems, Problem
from infra.launcher.progress import Facts, RoleFacts
from infra.launcher.screen import SHOWN_STEPS_WITHOUT_GRADIENT, Size, screen
from infra.launcher.terminal import without_control_echo

REFRESH_S = 0.5
PLAIN_EVERY_S = 5.0


class View(Protocol):
    """Where a run is shown."""

    every_s: float
    """Seconds between calls of :meth:`update`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def print_line(self, text: str) -> None:
        """Print a line that stays."""

    def show_problems(self, found: Sequence[Problem]) -> None:
        """Show all warnings and errors so far, the worst first."""

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        """Show the newest facts."""


class PlainView:
    """A view for pipes and files: single lines."""

    every_s = PLAIN_EVERY_S

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._new = NewProblems()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def show_problems(self, found: Sequence[Problem]) -> None:
        for problem in self._new.take(found):
            self.print_line(str(problem))

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        self.print_line(plain_line(facts, roles, elapsed_s))


class LiveView:
    """A view for a terminal: one panel, redrawn in place at most twice a second."""

    every_s = REFRESH_S

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._problems: Sequence[Problem] = ()
        self._terminal = ExitStack()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._terminal.enter_context(without_control_echo())
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._terminal.close()

    def print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def show_problems(self, found: Sequence[Problem]) -> None:
        self._problems = found

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        size = Size(self._console.width, self._console.height)
        self._live.update(screen(self._title, facts, roles, elapsed_s, self._problems, size), refresh=True)


def plain_line(facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> str:
    """Return all facts of the live view in one line."""
    parts = [f"{clock(elapsed_s)} {facts.phase}", f"step {facts.step}/{facts.steps}"]
    parts += [f"{key} {step}/{steps}" for key, step, steps in facts.further]
    if facts.eta_s is not None:
        parts.append(f"eta {clock(facts.eta_s)}")
    if facts.rewards:
        parts.append(f"reward {recent_mean(facts.rewards):.3f}")
    if facts.accuracies:
        version, score = facts.accuracies[-1]
        share = facts.main_set not in facts.rewarded_sets
        parts.append(f"held-out {'' if share else 'reward '}{score_text(score, share=share)} (v{version})")
    elif facts.unscored:
        parts.append(f"held-out {NOT_SCORED}")
    parts += [
        f"{name} {score_text(found[-1][1], share=name not in facts.rewarded_sets)} (v{found[-1][0]})"
        for name, found in facts.other_sets.items()
        if found
    ]
    parts.append(f"staleness {facts.staleness_mean:.2f} max {facts.staleness_max:.0f}")
    parts.append("lag " + (" ".join(f"{topic} {count}" for topic, count in facts.lag.items()) or "-"))
    parts.append(f"{facts.experiences_per_s:.0f} experiences/s")
    parts.append(f"trainer idle {facts.idle_share:.0%}")
    if facts.steps_without_gradient >= SHOWN_STEPS_WITHOUT_GRADIENT:
        parts.append(f"{facts.steps_without_gradient} steps without gradient")
    if facts.dead_letters:
        parts.append(f"dead letters {facts.dead_letters}")
    parts.append(", ".join(_describe_role(role) for role in roles))
    return " | ".join(parts)


def _describe_role(role: RoleFacts) -> str:
    restarts = f"+{role.restarts}" if role.restarts else ""
    note = f" ({role.note})" if role.note else ""
    return f"{role.name}{restarts} {role.state} {role.memory_bytes / 2**20:.0f} MiB{note}"
