"""Carries a plan out: starts a deployment for each scenario, injects its faults one by one, then audits its log."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.deployment import Deployment
from chaos.faults import change_topic, inject
from chaos.node import ProxiedCluster
from chaos.plan import ENDINGS, Fault, Scenario
from chaos.progress import Lane
from chaos.table import Finding, Outcome, Result
from chaos.verdict import judge

START_S = 180.0
FINISH_S = 300.0
STUCK_S = 180.0
"""A pipeline that makes no progress for this time has not recovered from the fault."""
ENDS_S = 120.0
"""A run must end within this time after a change of its topics."""
POLL_S = 0.1

Report = Callable[[str], None]


def run_plan(
    plan: Sequence[Scenario],
    seed: int,
    folder: Path,
    model: Path,
    report: Report,
    enough: Callable[[], bool] = lambda: False,
    nodes: int = 1,
) -> Outcome:
    """Run all scenarios on one cluster of ``nodes``. ``report`` is called with a line for each thing that happens.

    After a fault without recovery, a new deployment takes the scenario's other faults.

    When ``enough`` returns True, no further fault is injected: the present deployment runs to its end and is audited.
    Raises BrokerError if there is no Apache Kafka to start.
    """
    outcome = Outcome(seed)
    began = time.monotonic()
    node = ProxiedCluster(folder, nodes)
    numbers = itertools.count(len(plan))
    waiting = list(plan)
    try:
        while waiting and not enough():
            scenario = waiting.pop(0)
            before = len(outcome.results)
            node.ensure_whole()
            here = Deployment(folder / f"deployment-{scenario.number}", model, node, scenario)
            try:
                _run_scenario(scenario, here, outcome, report, enough)
            except Exception as error:  # a deployment that breaks down must not hide the results of the others
                report(f"deployment {scenario.number} broke down: {error}")
                text = f"{type(error).__name__}: {error}"
                outcome.findings.append((scenario.number, Finding("stuck", text, _now_ms())))
                if len(outcome.results) > before and (rest := scenario.faults[len(outcome.results) - before :]):
                    waiting.insert(0, dataclasses.replace(scenario, number=next(numbers), faults=rest))
            finally:
                here.close()
                outcome.wall_s = time.monotonic() - began
    finally:
        node.stop()
    return outcome


def _run_scenario(
    scenario: Scenario, here: Deployment, outcome: Outcome, report: Report, enough: Callable[[], bool]
) -> None:
    report(
        f"deployment {scenario.number}: {scenario.explorers} explorers, {scenario.processors} processors, "
        f"max_staleness {scenario.max_staleness}, sync_interval {scenario.sync_interval}, disk: {here.disk.how}"
    )
    here.start(START_S)
    for fault in scenario.faults:
        if enough():
            break
        if fault.kind in ENDINGS:
            _expect_end(fault, scenario, here, outcome, report)
            return
        result = _run_fault(fault, scenario, here, outcome)
        report(
            f"fault {fault.number}, {fault.kind}: recovered after {result.recovery_s:.1f} s, "
            f"{result.after_s:.1f} s after its end; {result.restarted} roles restarted, "
            f"step {here.watch.step}"
        )
    steps = here.finish(FINISH_S)
    outcome.steps += steps
    outcome.experiences += here.watch.count("experiences")
    findings = judge(here, steps)
    outcome.findings += [(scenario.number, finding) for finding in findings]
    outcome.scenarios += 1
    report(f"deployment {scenario.number}: ended after {steps} steps, {len(findings)} findings")
    for finding in findings[:20]:
        report(f"  {finding.kind}: {finding.text}")


def _run_fault(fault: Fault, scenario: Scenario, here: Deployment, outcome: Outcome) -> Result:
    """Inject a fault, add its result to the outcome, and return it.

    The pipeline has recovered when what the fault hurt works, and when its consumer groups have committed everything
    that they could read then. Raises AssertionError without a recovery.
    """
    before = here.pids()
    injected_at, began = _now_ms(), time.monotonic()
    result = Result(fault.number, fault.kind, scenario.number, injected_at, None, fault.lasts_s)
    outcome.results.append(result)
    with here.progress.fault():
        recovered = inject(fault, here)
    result = dataclasses.replace(result, ended_s=round(time.monotonic() - began, 2))
    ends: dict[Lane, int] | None = None
    works = False
    deadline = time.monotonic() + STUCK_S
    while time.monotonic() < deadline:
        assert here.run.process is not None
        if here.run.process.poll() is not None:
            raise AssertionError(f"the run ended after fault {fault.number} ({fault.kind}):\n{here.run.tail()}")
        works = works or recovered()
        if works and ends is None:
            ends = here.progress.ends()
        if ends is not None and not here.progress.behind(ends):
            after = here.pids()
            restarted = sum(after.get(name) != pid for name, pid in before.items())
            recovery_s = round(time.monotonic() - began, 2)
            outcome.results[-1] = dataclasses.replace(result, recovery_s=recovery_s, restarted=restarted)
            return outcome.results[-1]
        time.sleep(POLL_S)
    outcome.results[-1] = result
    missing = f"not committed: {here.progress.behind(ends)}" if ends is not None else "not all works again"
    raise AssertionError(
        f"no recovery from fault {fault.number} ({fault.kind}) within {STUCK_S:g} s after its end; {missing}:\n"
        f"{here.run.tail()}"
    )


def _expect_end(fault: Fault, scenario: Scenario, here: Deployment, outcome: Outcome, report: Report) -> None:
    """Change a topic, and check that the run ends with the error that names it. Raises AssertionError if not."""
    began = time.monotonic()
    result = Result(fault.number, fault.kind, scenario.number, _now_ms(), None, fault.lasts_s)
    outcome.results.append(result)
    with here.progress.fault():
        topic = change_topic(fault, here)
        here.progress.stop()
    ended_s = round(time.monotonic() - began, 2)
    code = here.run.wait(ENDS_S)
    output = here.run.output.read_text(errors="replace")
    assert code != 0, f"the run ended as if all was well after {fault.kind} ({topic}):\n{here.run.tail()}"
    assert "TopicChangedError" in output, f"{fault.kind} ({topic}) is not named:\n{here.run.tail()}"
    assert topic in output, f"the error of {fault.kind} does not name {topic}:\n{here.run.tail()}"
    recovery_s = round(time.monotonic() - began, 2)
    outcome.results[-1] = dataclasses.replace(result, ended_s=ended_s, recovery_s=recovery_s)
    outcome.scenarios += 1
    report(
        f"fault {fault.number}, {fault.kind}: the run ended after {recovery_s:.1f} s with the error that names {topic}"
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
