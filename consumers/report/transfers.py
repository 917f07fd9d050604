"""Reports how weight versions reached the explorers, for ``report.json`` and ``report.html``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from consumers.report.charts import Line, figures_table, line_chart
from consumers.report.measures import sum_stats
from consumers.report.reducer import TRANSFER_PREFIX, RunSummary, Step


def transfer_figures(summary: RunSummary, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the figures of all weight transfers.

    ``announced`` counts versions. ``resync_s`` and ``pause_s`` are seconds of all explorers: to get weights while they
    generate, and to load them while they do not. ``collective`` holds means and totals of collective transfers, or None
    if none was measured.
    """
    measured = [step.weights for step in steps if f"{TRANSFER_PREFIX}update_s" in step.weights]
    return {
        "announced": len(summary.announced_versions),
        **sum_stats(summary.members.values(), ("resync_s", "pause_s")),
        "collective": _collective_figures(measured) if measured else None,
    }


def _collective_figures(measured: Sequence[Mapping[str, float]]) -> dict[str, float | int]:
    def values(name: str) -> list[float]:
        return [metrics[TRANSFER_PREFIX + name] for metrics in measured if TRANSFER_PREFIX + name in metrics] or [0.0]

    updates = values("update_s")
    return {
        "updates": len(updates),
        "update_s_mean": round(mean(updates), 4),
        "update_s_max": round(max(updates), 4),
        "epochs": int(sum(values("epochs"))),
        "missed": int(sum(values("missed"))),
        "members_max": int(max(values("members"))),
        "mb_per_s": round(median(values("bytes_per_s")) / 1e6, 1),
        "trainer_wait_s": round(sum(values("wait_s")) + sum(values("describe_s")), 3),
    }


def transfers_card(figures: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """Render a table of collective transfers, and a chart of the time that each version took; empty without any."""
    collective = figures["collective"]
    if collective is None:
        return ""
    rows = (
        ("versions", "announced", f"{figures['announced']:,}"),
        ("transfers", "epochs, retries included", f"{collective['epochs']:,}"),
        ("missed", "members that had to catch up from a folder", f"{collective['missed']:,}"),
        ("members", "most that received one version", f"{collective['members_max']:,}"),
        ("rate", "to each member, median", f"{collective['mb_per_s']:,.0f} MB/s"),
        ("training waited", "for checksums and the previous version", f"{collective['trainer_wait_s']:,.2f} s"),
        ("generation paused", "sum over all explorers", f"{figures['pause_s']:,.2f} s"),
    )
    name = f"{TRANSFER_PREFIX}update_s"
    points = [(float(step.number), step.weights[name]) for step in steps if name in step.weights]
    return f"{figures_table(rows)}{line_chart([Line('seconds', points, 'a', peaks=True)], x_label='step')}"
