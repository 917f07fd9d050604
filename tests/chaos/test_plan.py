"""Plans are drawn fairly from a seed, and the table counts their results."""

from __future__ import annotations

from collections import Counter

import pytest
from accounts import discrepancies
from hypothesis import given
from hypothesis import strategies as st
from pipeline import Log

from chaos.deployment import group_deadline_s
from chaos.harness import STUCK_S
from chaos.plan import ALL_KINDS, CLUSTER, ENDINGS, KINDS, LONG_OUTAGES, NEIGHBORS, SESSION_S, default_kinds, make_plan
from chaos.table import Finding, Outcome, Result, fault_before, remarks
from schemas.events import EventRef, Task, TrainingStep


@given(seed=st.integers(0, 2**32), faults=st.integers(1, 300), per=st.integers(1, 40))
def test_every_kind_is_drawn_equally_often_and_every_fault_is_planned(seed, faults, per):
    plan = make_plan(seed, faults, per_scenario=per)
    drawn = [fault for scenario in plan for fault in scenario.faults]
    assert [fault.number for fault in drawn] == list(range(faults))
    assert all(1 <= len(scenario.faults) <= per for scenario in plan)
    counts = Counter(fault.kind for fault in drawn)
    assert max(counts.values()) - min(counts.get(kind, 0) for kind in KINDS) <= 1
    assert plan == make_plan(seed, faults, per_scenario=per)


def test_a_stopped_process_is_silent_for_longer_than_a_session():
    drawn = [fault for scenario in make_plan(1, 280) for fault in scenario.faults]
    stops = [fault.lasts_s for fault in drawn if fault.kind.startswith("SIGSTOP")]
    assert len(stops) == 80
    assert min(stops) > SESSION_S


def test_three_nodes_meet_the_faults_of_clusters_and_neighbors_too_but_minutes_without_the_cluster_only_if_asked():
    assert default_kinds(1) == KINDS
    assert {*KINDS, *CLUSTER, *NEIGHBORS, *ENDINGS} == set(ALL_KINDS)
    assert set(default_kinds(3)) == set(ALL_KINDS) - set(LONG_OUTAGES)
    drawn = [fault for scenario in make_plan(1, 50, ALL_KINDS) for fault in scenario.faults]
    lasts = {fault.kind: fault.lasts_s for fault in drawn if fault.kind.startswith("two nodes")}
    assert lasts == {f"two nodes down {seconds} s": seconds for seconds in (5, 30, 150)}
    lasts = {fault.kind: fault.lasts_s for fault in drawn if fault.kind.startswith("outage")}
    assert lasts == {f"outage of {seconds} s": seconds for seconds in (5, 30, 150, 600)}


def test_long_outages_outlast_the_deadline_of_groups_and_no_recovery_can_wait_for_it():
    for scenario in make_plan(1, 60, ALL_KINDS, per_scenario=4):
        long = any(fault.kind in LONG_OUTAGES for fault in scenario.faults)
        deadline_s = group_deadline_s(scenario)
        assert deadline_s < scenario.longest_s if long else deadline_s > STUCK_S + scenario.longest_s


def test_a_fault_that_ends_its_run_has_a_deployment_of_its_own():
    plan = make_plan(2, 60, ALL_KINDS, per_scenario=9)
    faults = [fault for scenario in plan for fault in scenario.faults]
    assert sorted(fault.number for fault in faults) == list(range(60))
    endings = [scenario for scenario in plan if any(fault.kind in ENDINGS for fault in scenario.faults)]
    assert len(endings) >= 4
    assert all(len(scenario.faults) == 1 for scenario in endings)


def test_another_seed_is_another_plan():
    assert make_plan(1, 50) != make_plan(2, 50)


RESULTS = [
    Result(0, "kill -9 trainer", 0, 1000, 4.0, 0),
    Result(1, "full disk", 0, 2000, 8.0, 0),
    Result(2, "kill -9 trainer", 1, 3000, 70.0, 0),
]


def test_the_table_counts_the_losses_and_recovery_times_of_each_fault():
    outcome = Outcome(0, RESULTS, [(0, Finding("lost", "a", 2500)), (0, Finding("twice", "b", 0))])
    rows = {row.kind: (row.injected, row.lost, row.twice, row.p50_s, row.max_s) for row in outcome.rows()}
    assert rows == {
        "kill -9 trainer": (2, 0, 0, 37.0, 70.0),
        "full disk": (1, 1, 0, 8.0, 8.0),
        "all": (3, 1, 1, 8.0, 70.0),
    }
    assert not outcome.ok
    outcome.left_out = ("full disk",)
    assert "not injected, as asked: full disk" in remarks(outcome)
    assert any("slow: fault 2" in line for line in remarks(outcome))


def test_the_time_of_a_fault_itself_is_no_slow_recovery():
    outcome = Outcome(0, [Result(0, "outage of 600 s", 0, 1000, 640.0, 600, ended_s=630.0)])
    assert remarks(outcome) == []
    assert outcome.rows()[-1].max_after_s == 10.0


def test_only_a_run_without_findings_is_ok():
    assert Outcome(0, RESULTS).ok
    for kind in ("lost", "twice", "unbalanced", "stuck"):
        assert not Outcome(0, RESULTS, [(0, Finding(kind, ""))]).ok


def test_a_finding_is_attributed_to_the_fault_before_it():
    assert fault_before(Finding("lost", "", 999), RESULTS) is None
    assert fault_before(Finding("lost", "", 2000), RESULTS[:2]).number == 1


def task(number: int) -> Task:
    return Task(f"train-{number:08d}", number, "train", "s", "p", "a", 1, 1, 1.0, 1.0, 0, 0, 100 + number)


def step(number: int, *names: str, retired: tuple[int, ...] = ()) -> TrainingStep:
    refs = tuple(EventRef(0, 0, name, 0, 0) for name in names)
    return TrainingStep("policy", "step", number, 0, 1, refs, (), retired, "d", {}, 1)


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (Log([task(0)], [], {}, [step(1)], [], []), []),
        (Log([task(0)], [], {}, [step(1, retired=(0,))], [], []), ["train-00000000/0 has no outcome"]),
        (Log([], [], {}, [], [], []), ["step 1 is not in steps"]),
        (Log([], [], {}, [step(1), step(2)], [], []), ["there is a step 2, after the last"]),
        (Log([], [], {}, [step(1, "a", "a")], [], []), ["a was trained in steps 1 and 1"]),
        (Log([task(0), task(0)], [], {}, [step(1)], [], []), ["task 0 was issued 2 times"]),
        (Log([task(1)], [], {}, [step(1)], [], []), ["task 0 was never issued"]),
    ],
)
def test_what_is_lost_or_doubled_is_named(log, found):
    assert [one.text for one in discrepancies(log, steps=1)] == found
