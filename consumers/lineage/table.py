"""Prints lineage for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumers.lineage.facts import Copy, ExperienceLineage, Span, StepLineage, TaskLineage, WeightsLineage

_SHOWN = 64
"""Experiences that are printed of each step; ``--json`` has them all."""
_LONGEST = 60
"""Characters of a text in a table."""


def show_weights(lineage: WeightsLineage, console: Console) -> None:
    """Print where weights came from."""
    weights = lineage.weights
    _facts(
        console,
        f"weights: version {weights.version} of {weights.model}",
        [
            ("announced", _time(weights.created_at)),
            ("after step", f"{weights.step}{' (final)' if weights.final else ''}"),
            ("made from", "the initial weights" if lineage.previous is None else f"version {lineage.previous}"),
            ("by steps", ", ".join(str(step.step) for step in lineage.steps) or "none"),
            ("in all", f"{lineage.total_steps:,} steps, {lineage.total_experiences:,} experiences"),
            ("files", f"{weights.uri} ({weights.size_bytes:,} bytes)"),
            ("sha256", weights.sha256),
        ],
    )
    for step in lineage.steps:
        show_step(step, console)


def show_step(lineage: StepLineage, console: Console) -> None:
    """Print what a step was made of."""
    _facts(
        console,
        f"step {lineage.step} of {lineage.model}",
        [
            ("recorded", _time(lineage.created_at)),
            ("weights", f"version {lineage.from_version} → {lineage.to_version}"),
            ("sha256 after", lineage.digest),
            ("trained", f"{len(lineage.experiences):,} experiences"),
            ("dropped", ", ".join(f"{count:,} {cause}" for cause, count in sorted(lineage.dropped.items())) or "none"),
            ("metrics", ", ".join(f"{name} {value:.4g}" for name, value in sorted(lineage.metrics.items()))),
        ],
    )
    _experiences(console, lineage.experiences)


def show_task(lineage: TaskLineage, console: Console) -> None:
    """Print a task and its experiences."""
    issued = "not on the log" if lineage.issued_at is None else _time(lineage.issued_at)
    _facts(
        console,
        f"task {lineage.group_id}",
        [
            ("issued", issued),
            ("number", "-" if lineage.number is None else f"{lineage.number} ({lineage.split})"),
            ("needed", "-" if lineage.min_version is None else f"weights of version {lineage.min_version} or later"),
            ("prompt", lineage.prompt or "-"),
            ("answer", lineage.answer or "-"),
        ],
    )
    _experiences(console, lineage.experiences)


def show_experience(lineage: ExperienceLineage, console: Console) -> None:
    """Print an experience, from its task to the weights that it changed."""
    rewards = ", ".join(f"{name} {value:g}" for name, value in sorted(lineage.rewards.items()))
    verdict = lineage.verdict or "none yet"
    _facts(
        console,
        f"experience {lineage.experience_id}",
        [
            ("outcome", lineage.outcome),
            ("task", f"{lineage.group_id} ({lineage.split})"),
            ("by", f"{lineage.source}, {lineage.model}, {lineage.kind}"),
            ("prompt", lineage.prompt),
            ("response", lineage.response),
            ("tokens", f"{lineage.tokens:,}, written by {_spans(lineage.spans)}"),
            ("published", _positions("experiences", lineage.published)),
            ("scored", _positions("ready", lineage.ready)),
            ("verdict", verdict + (f": {lineage.cause}" if lineage.cause else "")),
            ("reward", "-" if lineage.reward is None else f"{lineage.reward:g}" + (f" ({rewards})" if rewards else "")),
            *(("dead letter", error) for error in lineage.dead_letters),
            *(
                (
                    use.model,
                    f"{'step' if use.kind == 'step' else 'after step'} {use.step} "
                    + (f"trained it, staleness {use.staleness}" if use.trained else f"dropped it: {use.cause}")
                    + f" (weights {use.from_version} → {use.to_version})",
                )
                for use in lineage.uses
            ),
        ],
    )


def _experiences(console: Console, experiences: Sequence[ExperienceLineage]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("experience", "experiences at", "ready at", "written by", "reward", "outcome", "response"):
        table.add_column(name, overflow="ellipsis", no_wrap=name not in ("outcome", "written by"))
    for one in experiences[:_SHOWN]:
        reward = "-" if one.reward is None else f"{one.reward:g}"
        response = repr(one.response)[1:-1][:_LONGEST]
        cells = [
            one.experience_id,
            _at(one.published),
            _at(one.ready),
            _spans(one.spans),
            reward,
            one.outcome,
            response,
        ]
        table.add_row(*map(Text, cells))
    console.print(table)
    if len(experiences) > _SHOWN:
        console.print(f"{len(experiences) - _SHOWN:,} more, see --json", highlight=False)


def _facts(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console.print(table)


def _spans(spans: Sequence[Span]) -> str:
    if not spans:
        return "no policy"
    if len(spans) == 1:
        return f"version {spans[0].version}"
    return ", ".join(f"version {span.version} [{span.start}:{span.end}]" for span in spans)


def _at(copies: Sequence[Copy]) -> str:
    return ", ".join(f"{copy.partition}:{copy.offset}" for copy in copies) or "-"


def _positions(entity: str, copies: Sequence[Copy]) -> str:
    positions = (f"partition {copy.partition}, offset {copy.offset} ({_time(copy.timestamp_ms)})" for copy in copies)
    return f"{entity}: {'; '.join(positions)}" if copies else f"not in {entity}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
