"""The audit balances over samples of several rows: tries that gave way are duplicates, and a lost row is found."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rft.config import ProcessorConfig
from rft.stream.actions import Publish, Received
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from runs import PARTITIONS, Run, honest_run
from schemas.codec import encode


def publish_rows(run: Run, number: int, sample: int, rows: int, attempt: int = 0, only: int | None = None) -> list[Any]:
    name = f"train-{number:08d}/{sample}"
    return [
        run.publish(
            number,
            sample,
            experience_id=name if rows == 1 else f"{name}/{row}",
            row=row,
            rows=rows,
            created_at=attempt,
            group_size=2,
        )
        for row in range(rows if only is None else only)
    ]


def test_rows_are_events_of_their_own_and_trained_once():
    run = honest_run(steps=1)
    members = [*publish_rows(run, 8, 0, 3), *publish_rows(run, 8, 1, 1)]
    run.step(2, run.release(members))
    report = run.audit()
    assert report.ok, report.problems
    assert (report.published.scored, report.trained[0].trained) == (12, 12)


def test_rows_of_tries_that_gave_way_are_duplicates():
    """The first try broke off after its second row, the third came too late; the second one was trained."""
    run = honest_run(steps=1)
    publish_rows(run, 8, 0, 4, attempt=1, only=3)
    kept = publish_rows(run, 8, 0, 2, attempt=2)
    publish_rows(run, 8, 0, 3, attempt=3)
    run.step(2, run.release([*kept, *publish_rows(run, 8, 1, 1)]))
    report = run.audit(committed={0: 99, 1: 99})
    assert report.ok, report.problems
    assert len(report.published.duplicates) == 6


def test_while_its_group_is_open_only_a_try_that_gave_way_may_be_committed():
    run = honest_run(steps=1)
    publish_rows(run, 8, 0, 3, attempt=1, only=2)
    kept = publish_rows(run, 8, 0, 2, attempt=2)
    partition, first_kept = kept[0][1:]
    report = run.audit(committed={partition: first_kept, 1 - partition: 99})
    assert report.ok, report.problems
    assert (len(report.published.duplicates), len(report.published.waiting)) == (2, 2)
    report = run.audit(committed={partition: first_kept + 2, 1 - partition: 99})
    assert len(report.problems) == 2
    assert {problem.experience_id for problem in report.problems} == {one[0].experience_id for one in kept}


def test_a_lost_row_of_the_try_that_was_released_is_found():
    run = honest_run(steps=1)
    rows = publish_rows(run, 8, 0, 3, attempt=1)
    run.release([rows[0], rows[2], *publish_rows(run, 8, 1, 1)], {rows[0][0].experience_id: "rows_missing"})
    report = run.audit(committed={0: 99, 1: 99})
    assert [problem.experience_id for problem in report.problems] == [rows[1][0].experience_id]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_a_processor_makes_of_tries_in_any_order_balances(data):
    run, tries = Run(), []
    for number in range(2):
        for sample in range(2):
            for attempt in range(data.draw(st.integers(0, 3))):
                rows = data.draw(st.integers(1, 3))
                tries.append((number, sample, rows, attempt, data.draw(st.integers(1, rows))))
    order = [index for index, one in enumerate(tries) for _ in range(one[-1])]
    random.Random(data.draw(st.integers(0, 2**32))).shuffle(order)
    sent, published = [0] * len(tries), []
    for index in order:
        number, sample, rows, attempt, _ = tries[index]
        row, name = sent[index], f"train-{number:08d}/{sample}"
        sent[index] += 1
        changes = {"experience_id": name if rows == 1 else f"{name}/{row}", "row": row, "rows": rows}
        published.append(run.publish(number, sample, created_at=attempt, group_size=2, reward=0.5, **changes))
    config = ProcessorConfig(group_deadline_s=10, min_group_size=1)
    pipeline = Pipeline(Rules(config, lambda _: (0.0, {}), fifo, 1 << 20))
    actions = []
    for experience, partition, offset in published:
        event = Received(partition, offset, experience.group_id.encode(), encode(experience))
        actions += pipeline.receive(event, 0)
        if data.draw(st.integers(0, 9)) == 0:
            actions += pipeline.tick(20_000)
    actions += pipeline.tick(60_000)
    for action in actions:
        for scored in action.samples if isinstance(action, Publish) else ():
            run.write("ready", scored.origin_partition, encode(replace(scored, rewards={})))
    report = run.audit(committed=dict.fromkeys(range(PARTITIONS), 10**6))
    assert report.ok, report.problems
