"""Lays the live view out for the size of the terminal. Pure.

Small terminals show less: first the sample rollout goes, then the metrics of the newest step, then further problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consumers.report.measures import NOT_SCORED, score_text
from infra.launcher.formats import clock, recent_mean, sparkline
from infra.launcher.problems import Problem
from infra.launcher.progress import Facts, RoleFacts, SampleRollout
from rft.telemetry.notes import one_line

WIDE = 130
"""Columns from which the metrics of the newest step have a column of their own."""
CHROME_ROWS = 6
"""Rows of border, head and the line that the terminal keeps free. A large terminal also has padding."""
LEAST_PROBLEMS = 3
"""Rows for problems on the smallest terminal."""
MOST_PROBLEMS = 8
WRAPPED_ROWS = 3
"""Rows of the worst problem's text, if there is room."""
BESIDE_TEXT = 36
"""Columns that border, level and role take, and what a broken line may leave empty."""
SAMPLE_ROWS = 5
SHOWN_STEPS_WITHOUT_GRADIENT = 3
"""Single steps may have none: all groups of a small batch can be uniform."""
_STATE_STYLE = {"running": "green", "waiting": "yellow", "done": "cyan", "ended": "dim", "stopping": "yellow"}
_METRICS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "loss", "{:.4f}".format),
    ("KL", "kl", "{:.4f}".format),
    ("entropy", "entropy", "{:.3f} nats".format),
    ("gradient norm", "grad_norm", "{:.3g}".format),
    ("clipped", "clip_share", "{:.1%}".format),
    ("logprob gap", "logprob_gap_mean", "{:.2g} nats".format),
    ("learning rate", "learning_rate", "{:.2g}".format),
    ("step", "step_s", "{:.2f} s".format),
)
_OVER_TOKENS = ("kl", "entropy", "clip_share")
"""Means over the tokens that were learned from. A step without such tokens has none."""


class Size(NamedTuple):
    """Columns and rows of a terminal."""

    columns: int
    rows: int


SMALL = Size(80, 24)


def screen(
    title: str,
    facts: Facts,
    roles: Sequence[RoleFacts],
    elapsed_s: float,
    problems: Sequence[Problem] = (),
    size: Size = SMALL,
) -> RenderableType:
    """Return the whole live view. ``problems`` come with the worst first."""
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    eta = f"eta {clock(facts.eta_s)}" if facts.eta_s is not None else "eta --:--"
    bar = ProgressBar(total=facts.steps, completed=facts.step, complete_style="cyan", finished_style="green")
    head.add_row(Text(f"step {facts.step}/{facts.steps}", style="bold"), bar, f"{clock(elapsed_s)}  {eta}")

    wide = size.columns >= WIDE
    body = Table.grid(padding=(0, 3 if wide else 2), expand=True)
    body.add_column(ratio=1)
    learning, shown_roles = _learning(facts), _roles(roles)
    columns = [learning, shown_roles]
    if wide:
        body.add_column(ratio=1)
        columns.insert(1, _metrics(facts))
    body.add_column()
    body.add_row(*columns)

    large = size.rows > SMALL.rows
    free = size.rows - CHROME_ROWS - 2 * large - max(learning.row_count + len(facts.lag), shown_roles.row_count + 1)
    noted = [role for role in roles if role.note]
    shown = _own_problems(facts) + list(problems)
    found = _problems(shown, max(LEAST_PROBLEMS, free - len(noted) - 2), size.columns)
    free -= len(noted) + (min(len(shown), MOST_PROBLEMS) + WRAPPED_ROWS if found else 0)
    sample = _sample(facts.sample) if wide and facts.sample and free > SAMPLE_ROWS + 2 else []
    return Panel(
        Group(head, Text(), body, *found, *_notes(noted), *sample),
        title=Text(title, style="bold"),
        title_align="left",
        subtitle=Text(facts.phase, style="cyan"),
        subtitle_align="right",
        border_style="dim",
        padding=(1, 2) if large else (0, 2),
    )


def _learning(facts: Facts) -> Table:
    table = _pairs()
    reward = Text("-")
    if facts.rewards:
        reward = Text.assemble((f"{recent_mean(facts.rewards):.3f} ", "bold"), (sparkline(facts.rewards), "green"))
    table.add_row("reward", reward)
    share = facts.main_set not in facts.rewarded_sets
    scores = Text(NOT_SCORED) if facts.unscored and not facts.accuracies else _scores(facts.accuracies, share=share)
    table.add_row("held-out" if share else "held-out reward", scores)
    for name, found in facts.other_sets.items():
        table.add_row(name, _scores(found, share=name not in facts.rewarded_sets))
    table.add_row("weights", f"v{facts.version}" if facts.version >= 0 else "-")
    for key, step, steps in facts.further:
        table.add_row(key, f"step {step}/{steps}")
    table.add_row("staleness", f"mean {facts.staleness_mean:.2f}, max {facts.staleness_max:.0f}")
    table.add_row("experiences", f"{facts.experiences:,} ({facts.experiences_per_s:,.0f}/s)")
    table.add_row("trainer idle", f"{facts.idle_share:.0%}")
    table.add_row("lag", "\n".join(f"{topic} {count:,}" for topic, count in facts.lag.items()) or "-")
    table.add_row("dead letters", Text(str(facts.dead_letters), style="red" if facts.dead_letters else ""))
    return table


def _metrics(facts: Facts) -> Table:
    """Return the metrics of the newest step, and how fast and how long the rollouts are."""
    table = _pairs()
    nothing = facts.metrics.get("action_tokens") == 0.0
    for label, name, text in _METRICS:
        known = name in facts.metrics and not (nothing and name in _OVER_TOKENS)
        table.add_row(label, text(facts.metrics[name]) if known else "-")
    table.add_row("response", "-" if facts.response_tokens is None else f"{facts.response_tokens:,.1f} tokens")
    table.add_row("generation", f"{facts.tokens_per_s:,.0f} tokens/s")
    table.add_row("training", _training_speed(facts.metrics))
    return table


def _training_speed(metrics: Mapping[str, float]) -> str:
    seconds = metrics.get("step_s", 0.0)
    return f"{metrics.get('tokens', 0.0) / seconds:,.0f} tokens/s" if seconds else "-"


def _pairs() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


def _scores(scores: Sequence[tuple[int, float]], *, share: bool) -> Text:
    if not scores:
        return Text("-")
    first, last = scores[0], scores[-1]
    text = Text(f"{score_text(last[1], share=share)} ", style="bold")
    text.append(f"at v{last[0]}", style="dim")
    if last is not first:
        text.append(f", first {score_text(first[1], share=share)} ", style="dim")
        text.append(sparkline([score for _, score in scores]), style="cyan")
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


def _problems(found: Sequence[Problem], room: int, columns: int) -> list[RenderableType]:
    """Return the worst problems in at most ``room`` rows. The text of the worst may take several of them."""
    if not found:
        return []
    lines = [f"{f'{one.count:,}× ' if one.count > 1 else ''}{one.text}" for one in found]
    width = max(20, columns - BESIDE_TEXT)
    wrapped = min(WRAPPED_ROWS, room - 1, -(-len(lines[0]) // width))
    most = min(MOST_PROBLEMS, max(2, room - wrapped + 1))
    shown = len(found) if len(found) <= most else most - 1
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for index, (problem, line) in enumerate(zip(found[:shown], lines, strict=False)):
        style = "red" if problem.level == "error" else "yellow"
        text = Text(line, style=style, no_wrap=True, overflow="ellipsis")
        if not index and wrapped > 1:
            text = Text(one_line(line, wrapped * width), style=style, overflow="fold")
        table.add_row(Text(problem.level, style=style), Text(problem.role), text)
    if shown < len(found):
        table.add_row("", "", Text(f"and {len(found) - shown} more", style="dim"))
    return [Text(), table]


def _own_problems(facts: Facts) -> list[Problem]:
    """Return what the steps say."""
    steps = facts.steps_without_gradient
    if steps < SHOWN_STEPS_WITHOUT_GRADIENT:
        return []
    return [Problem("trainer", "warning", f"the last {steps} steps had no gradient: they teach nothing", 1, 0.0)]


def _notes(noted: Sequence[RoleFacts]) -> list[RenderableType]:
    """Return a line for each role that waits, cut where the screen ends."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold", no_wrap=True, min_width=max((len(role.name) for role in noted), default=0))
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis")
    for role in noted:
        table.add_row(role.name, Text(role.note))
    return [Text(), table] if noted else []


def _sample(sample: SampleRollout) -> list[RenderableType]:
    """Return a rollout in one line each for prompt, response and reward. Its text comes from anyone."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    filtered = f", filtered as {sample.cause}" if sample.cause else ""
    answer = "" if sample.answer is None else f"   (answer: {one_line(sample.answer, 120)})"
    table.add_row("prompt", Text(one_line(sample.prompt)))
    table.add_row("response", Text(one_line(sample.response), style="bold"))
    table.add_row("reward", Text(f"{sample.reward:.3f}{filtered}{answer}"))
    return [Text(), Text("newest rollout", style="dim italic"), table]
