"""Says what the conductor waits for when it has nothing to issue (pure)."""

from __future__ import annotations

from producers.conductor.core import Conductor
from rft.telemetry.activity import SHOWN_GROUPS, name_groups


def awaited_groups(core: Conductor) -> list[str]:
    """Return the ids of the first groups that are issued and not finished."""
    for version in sorted(core.evaluator.pending):
        return core.evaluator.unanswered(version)[:SHOWN_GROUPS]
    return [f"train-{number:08d}" for number in core.pacer.oldest_in_flight(SHOWN_GROUPS)]


def describe_wait(core: Conductor) -> str:
    """Return what must happen before there is more to issue, such as ``groups 812, 813 and 14 more to be retired``."""
    if core.lacks_weights:
        return "the first weight version"
    for version in sorted(core.evaluator.pending):
        groups = core.evaluator.unanswered(version)
        return f"{name_groups(groups)}, which evaluate weight version {version}"
    numbers = core.pacer.oldest_in_flight(SHOWN_GROUPS)
    if numbers:
        groups = [str(number) for number in numbers]
        return f"{name_groups(groups, core.pacer.in_flight)}, issued and not retired"
    return "the next weight version"
