"""Checks which groups are trained first."""

from __future__ import annotations

from collections.abc import Iterator

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from rft.stream.prioritize import make_prioritizer
from rft.training.priority import make_priority


def priorities(facts: Facts) -> Iterator[Finding]:
    """Find a priority that is unknown or whose function does not load."""
    make_prioritizer(facts.config.processor.priority)
    for own in facts.trainers:
        make_priority(own.buffer)
    yield Finding("ok", f"groups in the order {facts.config.processor.priority}")
