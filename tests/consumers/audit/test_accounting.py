"""The log balances exactly if nothing was lost, invented or trained twice. Only faults are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft.errors import DecodeError
from schemas.events import Experience, ScoredExperience, TrainingStep
from tests.consumers.audit.runs import SAMPLES, Run, honest_run, named


def test_an_honest_run_balances():
    report = honest_run().audit()
    assert report.ok, report.problems
    assert (report.published.published, report.published.scored) == (24, 24)
    (policy,) = report.trained
    assert (policy.model, policy.steps, policy.trained, policy.buffered) == ("policy", 3, 24, 0)


def test_an_empty_log_balances():
    report = Run().audit()
    assert report.ok
    assert report.trained[0].model == "policy"


def test_an_experience_removed_from_the_log_is_named():
    run = honest_run()
    run.remove("experiences", 1, 5)
    report = run.audit()
    assert named(report) == [("never_published", "train-00000003/1")]
    assert not report.ok
    assert not report.published.balanced


def test_a_scored_experience_removed_from_the_log_is_named():
    run = honest_run()
    run.remove("ready", 0, 9)
    report = run.audit()
    assert set(named(report)) == {("foreign_event", "train-00000004/1"), ("lost", "train-00000004/1")}


def test_a_duplicate_is_counted_and_named_but_is_no_problem():
    run = honest_run()
    run.publish(2, 3)
    report = run.audit()
    assert report.ok
    (duplicate,) = report.published.duplicates
    assert (duplicate.experience_id, duplicate.partition, duplicate.offset) == ("train-00000002/3", 0, 12)


def test_a_step_that_names_a_foreign_event_is_named():
    run = honest_run()
    (step,) = [e for e in run.events["steps"] if e.offset == 1]
    record = step.record(TrainingStep)
    foreign = replace(record.trained[0], experience_id="train-00000099/0", number=99)
    run.replace("steps", 0, 1, replace(record, trained=(foreign, *record.trained[1:])))
    report = run.audit()
    assert named(report) == [("foreign_event", "train-00000099/0")]
    (problem,) = report.problems
    assert (problem.step, problem.partition, problem.offset) == (2, foreign.partition, foreign.offset)
    assert "train-00000002/0" in problem.text


def test_a_step_that_names_nothing_is_named():
    run = honest_run()
    run.step(4, [(1, 999, "train-00000001/0")])
    assert ("foreign_event", "train-00000001/0") in named(run.audit())


def test_all_three_at_once_are_named_and_nothing_else():
    run = honest_run(steps=6)
    run.remove("experiences", 0, 2)
    run.publish(3, 1)
    record = run.events["steps"][4].record(TrainingStep)
    wrong = replace(record.trained[3], partition=0, offset=0)
    run.replace("steps", 0, 4, replace(record, trained=(*record.trained[:3], wrong, *record.trained[4:])))
    report = run.audit()
    assert sorted(named(report)) == [("foreign_event", wrong.experience_id), ("never_published", "train-00000000/2")]
    assert [named.experience_id for named in report.published.duplicates] == ["train-00000003/1"]


def test_an_id_trained_in_two_steps_is_named():
    run = honest_run()
    first = run.events["steps"][0].record(TrainingStep).trained[2]
    run.step(4, [(first.partition, first.offset, first.experience_id)])
    report = run.audit()
    assert named(report) == [("trained_twice", first.experience_id)]
    assert "steps 1, 4" in report.problems[0].text
    assert not report.trained[0].balanced


def test_a_step_recorded_again_by_its_trainer_counts_once():
    run = honest_run()
    run.events["steps"].append(replace(run.events["steps"][1], offset=3))
    assert run.audit().ok


def test_a_step_recorded_again_with_other_weights_is_named():
    run = honest_run()
    record = run.events["steps"][1].record(TrainingStep)
    run.step(2, [(r.partition, r.offset, r.experience_id) for r in record.trained], digest="other")
    assert named(run.audit()) == [("step_contradicted", None)]


def test_a_step_that_is_gone_from_the_lineage_is_named():
    run = honest_run()
    run.remove("steps", 0, 1)
    (problem,) = run.audit().problems
    assert (problem.kind, problem.step) == ("step_missing", 2)


def test_filtered_and_held_out_events_are_not_to_be_trained():
    run = Run()
    members = [run.publish(0, 0), run.publish(0, 1), run.publish(0, 2, split="eval")]
    positions = run.release(members, {"train-00000000/1": "too_long"})
    run.step(1, positions)
    assert sorted(named(run.audit())) == [
        ("not_for_training", "train-00000000/1"),
        ("not_for_training", "train-00000000/2"),
    ]


def test_every_outcome_of_an_experience_has_its_line():
    run = honest_run(steps=1)
    run.dead_letter(0, run.write("experiences", 0, b"garbage"), DecodeError("no frame"))
    failed = [run.publish(2, sample) for sample in range(SAMPLES)]
    run.dead_letter(failed[0][1], failed[0][2], ValueError("score"))
    positions = run.release(failed, {"train-00000002/0": "score_failed"})
    run.step(
        1,
        [],
        [(*position, "stale") for position in positions[1:]] + [(*positions[0], "filtered")],
        kind="retire",
        digest="",
    )
    run.publish(4, 0)
    run.publish(4, 0)
    early = [run.publish(6, sample) for sample in (0, 1)]
    run.release(early)
    run.publish(6, 2)
    run.release([run.publish(8, 0, split="eval")])
    report = run.audit()
    assert report.ok, report.problems
    published, (policy,) = report.published, report.trained
    assert published.filtered == {"score_failed": 1, "late": 1}
    assert published.dead_lettered == {"DecodeError": 1}
    assert [one.experience_id for one in published.waiting] == ["train-00000004/0"]
    assert [one.experience_id for one in published.duplicates] == ["train-00000004/0"]
    assert policy.dropped == {"stale": 3}
    assert (policy.trained, policy.evaluated, policy.buffered) == (8, 1, 2)


def test_spare_rollouts_that_come_to_a_complete_group_are_counted_and_named():
    run = Run()
    positions = run.release([run.publish(0, sample, spare=2) for sample in (0, 3)])
    run.step(1, positions)
    run.publish(0, 1, spare=2)
    run.publish(0, 1, spare=2)
    report = run.audit()
    assert report.ok, report.problems
    assert report.published.filtered == {"spare": 1}
    assert [(one.experience_id, one.offset) for one in report.published.spare] == [("train-00000000/1", 2)]
    assert [one.experience_id for one in report.published.duplicates] == ["train-00000000/1"]
    assert report.to_json()["spare"] == [{"experience_id": "train-00000000/1", "partition": 0, "offset": 2}]


def test_a_group_released_twice_counts_once():
    run = Run()
    members = [run.publish(0, sample) for sample in range(SAMPLES)]
    positions, again = run.release(members), run.release(members)
    run.step(1, positions, [(*position, "duplicate") for position in again])
    report = run.audit()
    assert report.ok, report.problems
    assert (report.published.scored, report.trained[0].trained, report.trained[0].dropped.total()) == (4, 4, 0)


def test_an_experience_that_its_released_group_passed_over_is_lost():
    run = Run()
    members = [run.publish(0, sample) for sample in range(SAMPLES)]
    run.release([members[0], members[2], members[3]])
    assert named(run.audit()) == [("lost", "train-00000000/1")]


def test_an_unresolved_experience_that_the_processors_committed_past_is_lost():
    run = Run()
    run.publish(0, 0)
    run.publish(0, 1)
    assert named(run.audit(committed={0: 1})) == [("lost", "train-00000000/0")]
    assert run.audit(committed={0: 0}).ok
    assert run.audit().ok


def test_a_dead_letter_of_an_event_that_does_not_exist_is_named():
    run = honest_run()
    run.dead_letter(1, 77, DecodeError("?"), claimed="train-00000001/9")
    assert named(run.audit()) == [("letter_of_nothing", "train-00000001/9")]


def test_an_experience_replaced_by_one_with_another_id_is_named():
    run = honest_run()
    other = run.events["experiences"][0].record(Experience)
    run.replace("experiences", 0, 0, replace(other, experience_id="train-00000000/77"))
    assert ("never_published", "train-00000000/0") in named(run.audit())


def test_what_retention_deleted_is_neither_lost_nor_proven():
    run = honest_run()
    run.dead_letter(0, 1, DecodeError("x"), claimed="old")
    run.remove("dlq", 0, 0)
    report = run.audit(begins={"experiences": {0: 6, 1: 4}, "ready": {0: 3}})
    assert report.ok, report.problems
    assert report.published.deleted == 6 + 4 - 3
    assert (report.trained[0].deleted, report.unchecked) == (3, 3)


def test_each_of_several_trainers_has_its_balance():
    run = honest_run()
    ready = [(e.partition, e.offset, e.record(ScoredExperience).experience.experience_id) for e in run.events["ready"]]
    run.step(1, ready[:8], model="shadow")
    report = run.audit()
    assert report.ok
    assert [(b.model, b.trained, b.buffered) for b in report.trained] == [("policy", 24, 0), ("shadow", 8, 16)]


def test_json_holds_all_names():
    run = honest_run()
    run.remove("experiences", 1, 5)
    run.publish(2, 3)
    values = run.audit().to_json()
    assert values["ok"] is False
    assert values["problems"][0]["experience_id"] == "train-00000003/1"
    assert values["duplicates"][0]["experience_id"] == "train-00000002/3"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_removing_any_trained_event_of_an_honest_run_is_noticed(data: st.DataObject):
    run = honest_run()
    entity = data.draw(st.sampled_from(["experiences", "ready"]))
    victim = data.draw(st.sampled_from(run.events[entity]))
    record = victim.record()
    lost = record.experience_id if isinstance(record, Experience) else record.experience.experience_id
    run.remove(entity, victim.partition, victim.offset)
    report = run.audit()
    assert not report.ok
    assert {name for _, name in named(report)} == {lost}


@pytest.mark.parametrize("order", [["steps", "dlq", "ready", "experiences"], ["dlq", "experiences", "steps", "ready"]])
def test_the_order_of_reading_does_not_matter(order: list[str]):
    run = honest_run()
    run.publish(2, 3)
    run.remove("experiences", 1, 5)
    before = run.audit().to_json()
    run.events = {entity: run.events[entity][::-1] for entity in order}
    assert run.audit().to_json() == before
