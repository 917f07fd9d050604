"""Checks set equality over a finished run's log: every issued task has an outcome, nothing was trained twice. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pipeline import Log


@dataclass(frozen=True)
class Discrepancy:
    """Something that was lost, or came twice."""

    kind: Literal["lost", "twice"]
    text: str
    at_ms: int
    """Unix time when it was issued or recorded; 0 if not known."""


def discrepancies(log: Log, steps: int) -> list[Discrepancy]:
    """Return what contradicts that ``steps`` steps were taken and nothing is missing or doubled."""
    return [*_lineage(log, steps), *_issued(log), *_outcomes(log)]


def _lineage(log: Log, steps: int) -> list[Discrepancy]:
    lineage = log.lineage
    missing = sorted(set(range(1, steps + 1)) - {step.step for step in lineage})
    found = [Discrepancy("lost", f"step {number} is not in steps", 0) for number in missing]
    if lineage and lineage[-1].step > steps:
        found.append(
            Discrepancy("twice", f"there is a step {lineage[-1].step}, after the last", lineage[-1].created_at)
        )
    seen: dict[str, int] = {}
    for step in lineage:
        for ref in step.trained:
            if ref.experience_id in seen:
                text = f"{ref.experience_id} was trained in steps {seen[ref.experience_id]} and {step.step}"
                found.append(Discrepancy("twice", text, step.created_at))
            seen[ref.experience_id] = step.step
    return found


def _issued(log: Log) -> list[Discrepancy]:
    issued = Counter(task.number for task in log.tasks if task.split == "train")
    at = {task.number: task.issued_at for task in log.tasks if task.split == "train"}
    found = [
        Discrepancy("twice", f"task {number} was issued {n} times", at[number]) for number, n in issued.items() if n > 1
    ]
    missing = set(range(max(issued, default=-1) + 1)) - issued.keys()
    return found + [Discrepancy("lost", f"task {number} was never issued", at.get(number + 1, 0)) for number in missing]


def _outcomes(log: Log) -> list[Discrepancy]:
    """Check that every rollout is published and scored, unless its task was in flight when the run ended."""
    retired = {number for step in log.steps for number in step.retired}
    issued = {f"{task.group_id}/{sample}": task for task in log.tasks for sample in range(task.samples)}
    published = {experience.experience_id: experience for experience in log.experiences}
    ready = {scored.experience.experience_id for scored in log.ready.values()}
    found = []
    for name, task in issued.items():
        if (name in published and name in ready) or (task.split == "train" and task.number not in retired):
            continue
        what = "was scored, but is not published" if name in ready else "has no outcome"
        found.append(Discrepancy("lost", f"{name} {what}", task.issued_at))
    found += [
        Discrepancy("twice", f"{name} was published, but its task was never issued", published[name].created_at)
        for name in published.keys() - issued.keys()
    ]
    return found
