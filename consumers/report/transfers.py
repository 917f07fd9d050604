"""How weight versions reached the explorers, for ``report.json`` and ``report.html``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from consumers.report.charts import Line, figures_table, line_chart
from consumers.report.measures import summed
from consumers.report.reducer import TRANSFER, Step, Story


def transfers(story: Story, steps: Sequence[Step]) -> dict[str, Any]:
    """``announced`` versions, and seconds of all explorers: ``resync_s`` to get weights beside generation, ``pause_s``
    in which they did not generate for it. ``collective`` is None unless transfers were measured; means and totals of
    them else."""
    told = [step.weights for step in steps if f"{TRANSFER}update_s" in step.weights]
    return {
        "announced": len(story.announced),
        **summed(story.members.values(), ("resync_s", "pause_s")),
        "collective": _collective(told) if told else None,
    }


def _collective(told: Sequence[Mapping[str, float]]) -> dict[str, float | int]:
    def all_of(name: str) -> list[float]:
        return [metrics[TRANSFER + name] for metrics in told if TRANSFER + name in metrics] or [0.0]

    updates = all_of("update_s")
    return {
        "updates": len(updates),
        "update_s_mean": round(mean(updates), 4),
        "update_s_max": round(max(updates), 4),
        "epochs": int(sum(all_of("epochs"))),
        "missed": int(sum(all_of("missed"))),
        "members_max": int(max(all_of("members"))),
        "mb_per_s": round(median(all_of("bytes_per_s")) / 1e6, 1),
        "trainer_wait_s": round(sum(all_of("wait_s")) + sum(all_of("describe_s")), 3),
    }


def transfers_card(found: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """Of collectives: a table, and how long each version took. Empty when there were none."""
    collective = found["collective"]
    if collective is None:
        return ""
    rows = (
        ("versions", "announced", f"{found['announced']:,}"),
        ("transfers", "epochs, with those that were tried again", f"{collective['epochs']:,}"),
        ("missed", "members left behind, who caught up from a folder", f"{collective['missed']:,}"),
        ("members", "most that held a version at its end", f"{collective['members_max']:,}"),
        ("rate", "to each member, median", f"{collective['mb_per_s']:,.0f} MB/s"),
        ("training waited", "for checksums and the version before", f"{collective['trainer_wait_s']:,.2f} s"),
        ("generation paused", "all explorers", f"{found['pause_s']:,.2f} s"),
    )
    name = f"{TRANSFER}update_s"
    points = [(float(step.number), step.weights[name]) for step in steps if name in step.weights]
    return f"{figures_table(rows)}{line_chart([Line('seconds', points, 'a', peaks=True)], x_label='step')}"
