"""The results of the faults, and the table of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table

from chaos.plan import ALL_KINDS

SLOW_S = 60.0
"""Recoveries that take longer after the end of their fault get a remark."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not happen."""

    kind: Literal["lost", "twice", "unbalanced", "stuck"]
    text: str
    at_ms: int = 0
    """Unix time of the affected event; 0 if not known."""


@dataclass(frozen=True, slots=True)
class Result:
    """One fault that was injected."""

    number: int
    kind: str
    scenario: int
    injected_at_ms: int
    recovery_s: float | None
    """Time from the injection to the recovery, including the fault's own duration; None without a recovery."""
    lasts_s: float
    """The fault's own duration, as drawn."""
    ended_s: float = 0.0
    """Time from the injection until the cluster, the network or the process was whole again."""
    restarted: int = 0
    """Roles that had another process afterwards."""

    @property
    def after_s(self) -> float | None:
        """Time from the fault's end to the recovery; None without a recovery."""
        return None if self.recovery_s is None else max(0.0, self.recovery_s - self.ended_s)


@dataclass(slots=True)
class Row:
    """A line of the table."""

    kind: str
    injected: int = 0
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    restarted: int = 0
    recoveries: list[float] = field(default_factory=list)
    afterwards: list[float] = field(default_factory=list)
    """Recovery times from the fault's end."""

    @property
    def p50_s(self) -> float | None:
        return round(statistics.median(self.recoveries), 1) if self.recoveries else None

    @property
    def max_after_s(self) -> float | None:
        return round(max(self.afterwards), 1) if self.afterwards else None

    @property
    def max_s(self) -> float | None:
        return round(max(self.recoveries), 1) if self.recoveries else None


@dataclass(slots=True)
class Outcome:
    """All scenarios of a run of the harness."""

    seed: int
    results: list[Result] = field(default_factory=list)
    findings: list[tuple[int, Finding]] = field(default_factory=list)
    """Findings with the scenario's number."""
    scenarios: int = 0
    """Number of scenarios that came to their end."""
    steps: int = 0
    experiences: int = 0
    wall_s: float = 0.0
    left_out: tuple[str, ...] = ()
    """Kinds of faults that were asked not to be injected."""

    @property
    def ok(self) -> bool:
        return not self.findings

    def rows(self) -> list[Row]:
        """Return a row for each kind that was injected, then one for all."""
        by_kind = {kind: Row(kind) for kind in ALL_KINDS}
        total = Row("all")
        for result in self.results:
            for row in (by_kind[result.kind], total):
                row.injected += 1
                row.restarted += result.restarted
                if result.recovery_s is not None and result.after_s is not None:
                    row.recoveries.append(result.recovery_s)
                    row.afterwards.append(result.after_s)
        for scenario, finding in self.findings:
            fault = fault_before(finding, [r for r in self.results if r.scenario == scenario])
            for row in (by_kind[fault.kind] if fault else Row(""), total):
                row.lost += finding.kind == "lost"
                row.twice += finding.kind == "twice"
                row.stuck += finding.kind == "stuck"
        return [row for row in by_kind.values() if row.injected] + [total]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        rows = [
            {"fault": r.kind, "injected": r.injected, "lost": r.lost, "trained_twice": r.twice, "stuck": r.stuck,
             "restarted": r.restarted, "p50_s": r.p50_s, "max_s": r.max_s, "max_after_s": r.max_after_s}
            for r in self.rows()
        ]  # fmt: skip
        findings = [{"scenario": scenario, **asdict(finding)} for scenario, finding in self.findings]
        return {
            "ok": self.ok,
            "seed": self.seed,
            "left_out": list(self.left_out),
            "scenarios": self.scenarios,
            "steps": self.steps,
            "experiences": self.experiences,
            "wall_s": round(self.wall_s, 1),
            "table": rows,
            "findings": findings,
            "faults": [asdict(result) for result in self.results],
        }


def fault_before(finding: Finding, results: Sequence[Result]) -> Result | None:
    """Return the last fault that was injected before the finding."""
    before = [result for result in results if result.injected_at_ms <= finding.at_ms]
    return max(before, key=lambda result: result.injected_at_ms, default=None)


def table(outcome: Outcome) -> Table:
    """Return the table for people."""
    seconds = f"{outcome.wall_s / 60:.1f} min"
    what = f"{outcome.scenarios} deployments, {outcome.steps:,} steps, {outcome.experiences:,} experiences"
    made = Table(title=f"seed {outcome.seed}: {what}, {seconds}", title_justify="left")
    made.add_column("fault")
    for name in ("injected", "lost", "trained twice", "stuck", "restarted", "recovery p50 s", "max s", "after its end"):
        made.add_column(name, justify="right")
    rows = outcome.rows()
    for row in rows:
        if row is rows[-1]:
            made.add_section()
        bad = "bold red" if row.lost or row.twice or row.stuck else ""
        times = map(_shown, (row.p50_s, row.max_s, row.max_after_s))
        cells = (row.injected, row.lost, row.twice, row.stuck, row.restarted, *times)
        made.add_row(row.kind, *map(str, cells), style=bad)
    return made


def remarks(outcome: Outcome) -> list[str]:
    """Return what the table does not show: findings and slow recoveries."""
    lines = [f"{finding.kind} (deployment {scenario}): {finding.text}" for scenario, finding in outcome.findings]
    slow = [r for r in outcome.results if r.after_s is not None and r.after_s > SLOW_S]
    lines += [
        f"slow: fault {r.number}, {r.kind}: {r.recovery_s:.0f} s (it lasted {r.ended_s:.0f} s itself)" for r in slow
    ]
    lines += [f"not injected, as asked: {kind}" for kind in outcome.left_out]
    return lines


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
