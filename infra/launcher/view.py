"""Shows a run while it goes on: one screen on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consumers.report.measures import NOT_SCORED
from infra.launcher.progress import Facts, RoleFacts

REFRESH_S = 0.5
PLAIN_EVERY_S = 5.0
SPARK = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
_STATE_STYLE = {"running": "green", "waiting": "yellow", "done": "cyan", "ended": "dim", "stopping": "yellow"}


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

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        """Show the newest facts."""


class PlainView:
    """A view for pipes and files: single lines."""

    every_s = PLAIN_EVERY_S

    def __init__(self, console: Console, title: str) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        self.print_line(plain_line(facts, roles, elapsed_s))


class LiveView:
    """A view for a terminal: one panel, redrawn in place at most twice a second."""

    every_s = REFRESH_S

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def update(self, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> None:
        self._live.update(screen(self._title, facts, roles, elapsed_s), refresh=True)


def plain_line(facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> str:
    """Return all facts of the live view in one line."""
    parts = [f"{clock(elapsed_s)} {facts.phase}", f"step {facts.step}/{facts.steps}"]
    parts += [f"{key} {step}/{steps}" for key, step, steps in facts.further]
    if facts.eta_s is not None:
        parts.append(f"eta {clock(facts.eta_s)}")
    if facts.rewards:
        parts.append(f"reward {recent_mean(facts.rewards):.3f}")
    if facts.accuracies:
        version, share = facts.accuracies[-1]
        parts.append(f"held-out {share:.1%} (v{version})")
    elif facts.unscored:
        parts.append(f"held-out {NOT_SCORED}")
    parts += [f"{name} {found[-1][1]:.1%} (v{found[-1][0]})" for name, found in facts.other_sets.items() if found]
    parts.append(f"staleness {facts.staleness_mean:.2f} max {facts.staleness_max:.0f}")
    parts.append("lag " + (" ".join(f"{topic} {count}" for topic, count in facts.lag.items()) or "-"))
    parts.append(f"{facts.experiences_per_s:.0f} experiences/s")
    parts.append(f"trainer idle {facts.idle_share:.0%}")
    if facts.dead_letters:
        parts.append(f"dead letters {facts.dead_letters}")
    parts.append(", ".join(_describe_role(role) for role in roles))
    return " | ".join(parts)


def screen(title: str, facts: Facts, roles: Sequence[RoleFacts], elapsed_s: float) -> RenderableType:
    """Return the whole live view."""
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    eta = f"eta {clock(facts.eta_s)}" if facts.eta_s is not None else "eta --:--"
    bar = ProgressBar(total=facts.steps, completed=facts.step, complete_style="cyan", finished_style="green")
    head.add_row(Text(f"step {facts.step}/{facts.steps}", style="bold"), bar, f"{clock(elapsed_s)}  {eta}")
    body = Table.grid(padding=(0, 2), expand=True)
    body.add_column(ratio=1)
    body.add_column()
    body.add_row(_learning(facts), _roles(roles))
    return Panel(
        Group(head, Text(), body, *_notes(roles)),
        title=Text(title, style="bold"),
        title_align="left",
        subtitle=Text(facts.phase, style="cyan"),
        subtitle_align="right",
        border_style="dim",
        padding=(1, 2),
    )


def _learning(facts: Facts) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    reward = Text("-")
    if facts.rewards:
        reward = Text.assemble((f"{recent_mean(facts.rewards):.3f} ", "bold"), (sparkline(facts.rewards), "green"))
    table.add_row("reward", reward)
    scores = Text(NOT_SCORED) if facts.unscored and not facts.accuracies else _accuracy(facts.accuracies)
    table.add_row("held-out", scores)
    for name, found in facts.other_sets.items():
        table.add_row(name, _accuracy(found))
    table.add_row("weights", f"v{facts.version}" if facts.version >= 0 else "-")
    for key, step, steps in facts.further:
        table.add_row(key, f"step {step}/{steps}")
    table.add_row("staleness", f"mean {facts.staleness_mean:.2f}, max {facts.staleness_max:.0f}")
    table.add_row("experiences", f"{facts.experiences:,} ({facts.experiences_per_s:,.0f}/s)")
    table.add_row("trainer idle", f"{facts.idle_share:.0%}")
    table.add_row("lag", "\n".join(f"{topic} {count:,}" for topic, count in facts.lag.items()) or "-")
    table.add_row("dead letters", Text(str(facts.dead_letters), style="red" if facts.dead_letters else ""))
    return table


def _accuracy(accuracies: Sequence[tuple[int, float]]) -> Text:
    if not accuracies:
        return Text("-")
    first, last = accuracies[0], accuracies[-1]
    text = Text(f"{last[1]:.1%} ", style="bold")
    text.append(f"at v{last[0]}", style="dim")
    if last is not first:
        text.append(f", first {first[1]:.1%} ", style="dim")
        text.append(sparkline([share for _, share in accuracies]), style="cyan")
    return text


def _roles(roles: Sequence[RoleFacts]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("role", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("restarts", justify="right")
    table.add_column("memory", justify="right", no_wrap=True)
    for role in roles:
        restarts = Text(str(role.restarts), style="yellow" if role.restarts else "dim")
        memory = f"{role.memory_bytes / 2**20:,.0f} MiB" if role.memory_bytes else "-"
        table.add_row(role.name, Text(role.state, style=_STATE_STYLE.get(role.state, "")), restarts, memory)
    return table


def _notes(roles: Sequence[RoleFacts]) -> list[RenderableType]:
    """Return a line for each role that says something, cut where the screen ends."""
    noted = [role for role in roles if role.note]
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold", no_wrap=True, min_width=max((len(role.name) for role in noted), default=0))
    table.add_column(style="yellow", no_wrap=True, overflow="ellipsis")
    for role in noted:
        table.add_row(role.name, Text(role.note))
    return [Text(), table] if noted else []


def _describe_role(role: RoleFacts) -> str:
    restarts = f"+{role.restarts}" if role.restarts else ""
    note = f" ({role.note})" if role.note else ""
    return f"{role.name}{restarts} {role.state} {role.memory_bytes / 2**20:.0f} MiB{note}"


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """Draw the values as at most ``width`` blocks, averaging neighbors. Equal values give the lowest block."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(SPARK[round((mean - low) / span * (len(SPARK) - 1)) if span else 0] for mean in means)


def recent_mean(values: Sequence[float], count: int = 10) -> float:
    """Return the mean of the last ``count`` values: single steps are noisy."""
    recent = values[-count:]
    return sum(recent) / len(recent)


def clock(seconds: float) -> str:
    """Format as ``12:34`` or ``1:02:34``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
