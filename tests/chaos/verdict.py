"""Judges a scenario's log after its end: the audit balances, the sets are equal, every malformed event is found."""

from __future__ import annotations

import json

from accounts import Discrepancy, discrepancies
from pipeline import Log, read_log

from chaos.deployment import NO_LETTER, Deployment, Message
from chaos.table import Finding
from chaos.watch import Origin, origin, original

_LOST = ("lost", "step_missing", "never_published")
_TWICE = ("trained_twice", "step_contradicted")


def judge(here: Deployment, steps: int) -> list[Finding]:
    """Return everything that is wrong with a deployment that has ended after ``steps`` steps."""
    log = read_log(here.direct_config, here.junk)
    return [*_audit(here, log), *map(_finding, discrepancies(log, steps)), *_junk(here, log), *_stalls(here)]


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


def _junk(here: Deployment, log: Log) -> list[Finding]:
    """Check that each malformed event became one dead letter, key and value untouched, and no other event did."""
    found = []
    dead_letters: dict[Origin, Message] = {}
    for event in log.dead_letters:
        contents = (event.key or b"", event.value)
        at = original(event)
        if at is None:
            if origin(event) not in here.junk:
                found.append(Finding("unbalanced", f"{origin(event)} is no dead letter", event.timestamp_ms))
        elif at not in here.junk:
            found.append(Finding("lost", f"the event at {tuple(at)} became a dead letter", event.timestamp_ms))
        elif dead_letters.setdefault(at, contents) != contents or contents != here.junk[at]:
            text = f"the dead letter of {tuple(at)} is not what was sent"
            found.append(Finding("unbalanced", text, event.timestamp_ms))
    missing = {at for at in here.junk if at.entity not in NO_LETTER} - dead_letters.keys()
    return found + [Finding("lost", f"the malformed event at {tuple(at)} became no dead letter", 0) for at in missing]


def _stalls(here: Deployment) -> list[Finding]:
    return [
        Finding("stuck", f"{stall.text}, for {stall.seconds:.0f} s", at_ms) for at_ms, stall in here.progress.stalls
    ]
