"""What a scenario's log says when it has ended: the audit's balance, set equality, and every poisoned event found."""

from __future__ import annotations

import json

from accounts import Discrepancy, discrepancies
from pipeline import Log, read_log

from chaos.deployment import Deployment
from chaos.table import Finding

_LOST = ("lost", "step_missing", "never_published")
_TWICE = ("trained_twice", "step_contradicted")


def judge(here: Deployment, steps: int) -> list[Finding]:
    """Everything that is wrong with a deployment that has come to its end after ``steps`` steps."""
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
    """Each poisoned event is one dead letter, key and value untouched, and nothing else is."""
    found = []
    letters: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {}
    for event in log.dead_letters:
        headers = dict(event.headers)
        where = int(headers["rft.error.partition"] or b""), int(headers["rft.error.offset"] or b"")
        contents = (event.key, event.value)
        if where not in here.poison:
            text = f"what stood at {where} of {(headers['rft.error.topic'] or b'').decode()} became a dead letter"
            found.append(Finding("lost", text, event.timestamp_ms))
        elif letters.setdefault(where, contents) != contents or contents != here.poison[where]:
            found.append(Finding("unbalanced", f"the dead letter of {where} is not what was sent", event.timestamp_ms))
    missing = here.poison.keys() - letters.keys()
    return found + [Finding("lost", f"the poisoned event at {where} became no dead letter", 0) for where in missing]
