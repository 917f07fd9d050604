"""Checks the trackers."""

from __future__ import annotations

from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.telemetry.opening import check_trackers


def trackers(facts: Facts) -> Iterator[Finding]:
    """Find a tracker whose library is not installed."""
    check_trackers(facts.config)
    if facts.config.trackers.use:
        yield Finding("ok", f"trackers {', '.join(facts.config.trackers.use)}")
