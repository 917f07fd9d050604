"""One line of figures for the log."""

from __future__ import annotations

from collections import Counter


def summary_line(counts: Counter[str], before: Counter[str], seconds: float, open_groups: int, unresolved: int) -> str:
    """Totals since start, and the rate since ``before`` was taken, ``seconds`` ago."""
    rate = (counts["in"] - before["in"]) / seconds
    parts = [f"in {counts['in']} ({rate:.0f}/s)", f"ready {counts['ready']}"]
    parts.append(_by_cause("filtered", counts))
    parts.append(f"duplicates {counts['duplicate']}")
    parts.append(f"late {counts['late']}")
    parts.append(_by_cause("dead", counts).replace("dead", "dead letters", 1))
    parts.append(f"groups {counts['groups']} ({counts['expired']} at deadline, {counts['early']} early)")
    if any(key.startswith("reward:") for key in counts):
        parts.append(f"external rewards {counts['reward:in']} ({_parts('reward', counts, without='in')})")
    parts.append(f"open groups {open_groups}")
    parts.append(f"unresolved events {unresolved}")
    return ", ".join(parts)


def _by_cause(kind: str, counts: Counter[str]) -> str:
    total = f"{kind} {sum(count for key, count in counts.items() if key.startswith(f'{kind}:'))}"
    return f"{total} ({_parts(kind, counts)})" if _parts(kind, counts) else total


def _parts(kind: str, counts: Counter[str], without: str = "") -> str:
    causes = {key.partition(":")[2]: count for key, count in sorted(counts.items()) if key.startswith(f"{kind}:")}
    return ", ".join(f"{cause} {count}" for cause, count in causes.items() if cause != without)
