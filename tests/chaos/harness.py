"""Carries a plan out: starts a deployment for each scenario, injects its faults one by one, then audits its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.deployment import Deployment
from chaos.faults import inject
from chaos.node import ProxiedNode
from chaos.plan import Fault, Scenario
from chaos.table import Finding, Outcome, Result
from chaos.verdict import judge

START_S = 180.0
FINISH_S = 300.0
STUCK_S = 180.0
"""A pipeline that makes no progress for this time has not recovered from the fault."""
POLL_S = 0.1

Report = Callable[[str], None]


def run_plan(
    plan: Sequence[Scenario],
    seed: int,
    folder: Path,
    model: Path,
    report: Report,
    enough: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run all scenarios on one broker. ``report`` is called with a line for each thing that happens.

    When ``enough`` returns True, no further fault is injected: the present deployment runs to its end and is audited.
    Raises BrokerError if there is no Apache Kafka to start.
    """
    outcome = Outcome(seed)
    began = time.monotonic()
    node = ProxiedNode(folder)
    try:
        for scenario in plan:
            if enough():
                break
            node.proxy.restore()
            node.ensure_started()
            here = Deployment(folder / f"deployment-{scenario.number}", model, node, scenario)
            try:
                _run_scenario(scenario, here, outcome, report, enough)
            except Exception as error:  # a deployment that breaks down must not hide the results of the others
                report(f"deployment {scenario.number} broke down: {error}")
                outcome.findings.append((scenario.number, Finding("stuck", f"{type(error).__name__}: {error}")))
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
        result = _run_fault(fault, scenario, here)
        outcome.results.append(result)
        if result.recovery_s is None:
            text = f"no recovery from fault {fault.number} ({fault.kind}) within {STUCK_S:g} s:\n{here.run.tail()}"
            raise AssertionError(text)
        report(f"fault {fault.number}, {fault.kind}: recovered after {result.recovery_s:.1f} s, step {here.watch.step}")
    steps = here.finish(FINISH_S)
    outcome.steps += steps
    outcome.experiences += here.watch.count("experiences")
    findings = judge(here, steps)
    outcome.findings += [(scenario.number, finding) for finding in findings]
    outcome.scenarios += 1
    report(f"deployment {scenario.number}: ended after {steps} steps, {len(findings)} findings")
    for finding in findings[:20]:
        report(f"  {finding.kind}: {finding.text}")


def _run_fault(fault: Fault, scenario: Scenario, here: Deployment) -> Result:
    injected_at, began = int(time.time() * 1000), time.monotonic()
    recovery_s = None
    recovered = inject(fault, here)
    while time.monotonic() - began < STUCK_S:
        assert here.run.process is not None
        if here.run.process.poll() is not None:
            raise AssertionError(f"the run ended after fault {fault.number} ({fault.kind}):\n{here.run.tail()}")
        if recovered():
            recovery_s = round(time.monotonic() - began, 2)
            break
        time.sleep(POLL_S)
    return Result(fault.number, fault.kind, scenario.number, injected_at, recovery_s, fault.lasts_s)
