"""Judges a scenario's log after its end: the audit balances, the sets are equal, every malformed event is found."""

from __future__ import annotations

import json

from accounts import Discrepancy, discrepancies
from pipeline import Log, read_log

from chaos.deployment import Deployment
from chaos.table import Finding
from chaos.watch import original_position
from rft.log.coordinates import LogPosition

_LOST = ("lost", "step_missing", "never_published")
_TWICE = ("trained_twice", "step_contradicted")


def judge(here: Deployment, steps: int) -> list[Finding]:
    """Return everything that is wrong with a deployment that has ended after ``steps`` steps."""
    log = read_log(here.direct_config)
    return [*_audit(here, log), *map(_finding, discrepancies(log, steps)), *_poison(here, log)]


def _audit(here: Deployment, log: Log) -> list[Finding]:
    done = here.audit()
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return [Finding("unbalanced", f"rft audit failed: {done.stdout[-500:]}{done.stderr[-1500:]}", 0)]
    recorded = {step.step: step.created_at for step in log.steps}
    found = []
    for problem in report["problems"]:
        kind = "lost" if problem["kind"] in _LOST else "twice" if problem["kind"] in _TWICE else "unbalanced"
        found.append(Finding(kind, f"audit: {problem['text']}", recorded.get(problem.get("step"), 0)))
    if not found and not (report["ok"] and done.returncode == 0):
        found.append(Finding("unbalanced", f"rft audit does not balance: {json.dumps(report)[:1500]}", 0))
    return found


def _finding(one: Discrepancy) -> Finding:
    return Finding(one.kind, one.text, one.at_ms)


def _poison(here: Deployment, log: Log) -> list[Finding]:
    """Check that each malformed event became one dead letter, key and value untouched, and no other event did."""
    found = []
    dead_letters: dict[LogPosition, tuple[bytes | None, bytes | None]] = {}
    for event in log.dead_letters:
        headers = dict(event.headers)
        position = original_position(event)
        contents = (event.key, event.value)
        if position not in here.poison:
            topic = (headers["rft.error.topic"] or b"").decode()
            text = f"the event at {tuple(position)} of {topic} became a dead letter"
            found.append(Finding("lost", text, event.timestamp_ms))
        elif dead_letters.setdefault(position, contents) != contents or contents != here.poison[position]:
            text = f"the dead letter of {tuple(position)} is not what was sent"
            found.append(Finding("unbalanced", text, event.timestamp_ms))
    missing = here.poison.keys() - dead_letters.keys()
    return found + [Finding("lost", f"the malformed event at {tuple(at)} became no dead letter", 0) for at in missing]
