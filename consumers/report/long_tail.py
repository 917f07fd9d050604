"""Reports what became of the slowest rollouts, for ``report.json`` and ``report.html``. Pure.

Rollouts that take longest are those that become too stale. If only they are dropped, a policy learns less from long
answers than it gives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from consumers.report.charts import figures_table
from consumers.report.reducer import RolloutSize, RunSummary, Step

STALE = "stale"


def long_tail_figures(summary: RunSummary, steps: Sequence[Step], bound: int) -> dict[str, Any]:
    """Return the figures of rollouts that were trained, that were too stale, and that came when they were not needed.

    ``dropped_share`` is the share that was dropped as too stale of all rollouts that were trained or so dropped.
    ``tokens_mean`` counts the tokens that the policy wrote, ``seconds_mean`` is the time of a whole rollout. Both are
    None if there are no rollouts. Experiences that no policy wrote are left out.

    Args:
        bound: ``trainer.max_staleness``.
    """
    ages = {name: int(age) for step in steps for name, age in zip(step.trained, step.staleness, strict=True)}
    trained = {name for name, age in ages.items() if age >= 0}
    dropped = {name for name, cause in summary.dropped.items() if cause == STALE and name not in ages}
    total = len(trained) + len(dropped)
    return {
        "dropped_share": round(len(dropped) / total, 4) if total else 0.0,
        "trained": _figures(trained, summary.sizes),
        "dropped": _figures(dropped, summary.sizes),
        "spare": _figures(summary.spare_sizes.keys() - summary.ready_ids, summary.spare_sizes),
        "beyond_bound": sum(age > bound for age in ages.values()),
    }


def long_tail_card(figures: Mapping[str, Any]) -> str:
    """Render a table of :func:`long_tail_figures`; empty if no rollout was trained or dropped."""
    trained, dropped = figures["trained"], figures["dropped"]
    if not trained["rollouts"] + dropped["rollouts"]:
        return ""
    rows = [
        ("trained", "rollouts", f"{trained['rollouts']:,}"),
        ("", "mean length and duration", _size(trained)),
        ("dropped", "rollouts that were too stale", f"{dropped['rollouts']:,} ({figures['dropped_share']:.1%})"),
    ]
    if dropped["rollouts"]:
        rows.append(("", "mean length and duration", _size(dropped)))
    if figures["spare"]["rollouts"]:
        rows.append(("spare", "rollouts that came when their group was complete", f"{figures['spare']['rollouts']:,}"))
        rows.append(("", "mean length and duration", _size(figures["spare"])))
    if figures["beyond_bound"]:
        rows.append(("kept", "trained though staler than the bound", f"{figures['beyond_bound']:,}"))
    return figures_table(rows)


def _figures(names: Collection[str], sizes: Mapping[str, RolloutSize]) -> dict[str, Any]:
    known = [sizes[name] for name in sorted(names) if name in sizes]
    return {
        "rollouts": len(names),
        "tokens_mean": round(fmean(size.tokens for size in known), 2) if known else None,
        "seconds_mean": round(fmean(size.duration_ms for size in known) / 1000, 3) if known else None,
    }


def _size(figures: Mapping[str, Any]) -> str:
    if figures["tokens_mean"] is None:
        return "not known"
    return f"{figures['tokens_mean']:,.1f} tokens, {figures['seconds_mean']:,.2f} s"
