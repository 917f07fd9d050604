"""A sample of several rows is complete with all rows of one try, counts once, and is never mixed with another try."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_experiences import MAX_BYTES, failed_experience, make_experience, make_rows, received, score_exactly

from rft.config import ProcessorConfig
from rft.errors import DecodeError
from rft.stream.actions import Action, Publish, Resolve
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from rft.stream.waiting_samples import check_members
from schemas.events import Experience, Waiting, WaitingMember

SIZE = 2
DEADLINE_MS = 10_000


def fresh(**fields: object) -> Pipeline:
    config = ProcessorConfig(**{"group_deadline_s": DEADLINE_MS / 1000, "min_group_size": 1, **fields})
    return Pipeline(Rules(config, score_exactly, fifo, MAX_BYTES))


def run(pipeline: Pipeline, experiences: list[Experience], start: int = 0) -> list[Action]:
    return [
        action for offset, one in enumerate(experiences, start) for action in pipeline.receive(received(one, offset), 0)
    ]


def only_release(actions: list[Action]) -> Publish:
    [release] = [action for action in actions if isinstance(action, Publish)]
    return release


@given(st.permutations(range(7)))
def test_a_group_is_released_with_its_last_row_in_whatever_order_rows_come(order):
    experiences = [*make_rows(0, 0, rows=3, size=2), *make_rows(0, 1, rows=4, size=2)]
    pipeline = fresh()
    shuffled = [experiences[n] for n in order]
    assert run(pipeline, shuffled[:-1]) == []
    release = only_release(run(pipeline, shuffled[-1:], start=6))
    assert {one.experience.experience_id for one in release.samples} == {one.experience_id for one in experiences}
    assert {one.release_size for one in release.samples} == {7}
    rewards = {one.experience.sample: one.reward for one in release.samples}
    assert rewards == {0: 0.0, 1: 1.0}, "the reward of a sample is that of its last row, for all its rows"
    assert {one.verdict for one in release.samples} == {"train"}
    rows = [(one.experience.sample, one.experience.row) for one in release.samples]
    assert rows == sorted(rows, key=lambda pair: ([pair[0] for pair in rows].index(pair[0]), pair[1]))
    assert run(pipeline, experiences, start=7) == [Resolve(0, 7 + n, "duplicate") for n in range(7)]


def test_samples_not_rows_count_for_the_size_of_a_group_and_for_its_priority():
    def count(rewards):
        return float(len(rewards))

    pipeline = fresh(min_group_size=3)
    release = only_release(run(pipeline, [*make_rows(0, 0, rows=5, size=2), make_experience(0, 1, size=2)]))
    assert {one.cause for one in release.samples} == {"group_too_small"}
    config = ProcessorConfig(min_group_size=1)
    pipeline = Pipeline(Rules(config, score_exactly, count, MAX_BYTES))
    release = only_release(run(pipeline, [*make_rows(0, 0, rows=5, size=2), make_experience(0, 1, size=2)]))
    assert {one.priority for one in release.samples} == {2.0}


def test_a_sample_that_lacks_a_row_at_the_deadline_is_filtered_and_the_others_are_trained():
    pipeline = fresh()
    first, _lost, last = make_rows(0, 0, rows=3, size=2)
    run(pipeline, [first, last, make_experience(0, 1, size=2)])
    release = only_release(pipeline.tick(DEADLINE_MS))
    causes = {one.experience.experience_id: (one.cause, one.reward) for one in release.samples}
    assert causes == {
        "train-00000000/0/0": ("rows_missing", 0.0),
        "train-00000000/0/2": ("rows_missing", 0.0),
        "train-00000000/1": (None, 1.0),
    }
    [late, again] = run(pipeline, [_lost, first], start=3)
    assert (late.cause, again.cause) == ("late", "duplicate")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"finish_reason": "length"}, "truncated"),
        ({"response": "raise"}, "score_failed"),
    ],
)
def test_a_row_that_is_filtered_filters_its_sample(change, cause):
    pipeline = fresh(drop_truncated=True)
    rows = make_rows(0, 0, rows=3, size=2)
    at = 1 if cause == "truncated" else 2
    rows[at] = replace(rows[at], **change)
    release = only_release(run(pipeline, [*rows, make_experience(0, 1, size=2)]))
    assert Counter(one.cause for one in release.samples) == {cause: 3, None: 1}


def test_a_try_that_broke_off_gives_way_to_the_next_and_is_never_mixed_with_it():
    pipeline = fresh()
    broken, whole = make_rows(0, 0, rows=3, size=1, attempt=1), make_rows(0, 0, rows=2, size=1, attempt=2)
    actions = run(pipeline, [*broken[:2], *whole, broken[2]])
    assert actions[:2] == [Resolve(0, 0, "duplicate"), Resolve(0, 1, "duplicate")]
    assert [one.experience for one in only_release(actions).samples] == whole
    assert actions[-1] == Resolve(0, 4, "duplicate")


def test_a_failed_rollout_takes_the_place_of_a_try_that_broke_off():
    pipeline = fresh()
    actions = run(pipeline, [make_rows(0, 0, rows=3, size=2)[0], failed_experience(0, 0, 2), make_experience(0, 1, 2)])
    assert Counter(one.cause for one in only_release(actions).samples) == {"rollout_failed": 1, None: 1}


def test_rewards_by_name_are_added_up_and_a_reward_of_the_producer_is_taken_as_it_is():
    named = make_rows(0, 0, rows=2, size=3, rewards={"style": 0.25, "exact_match": 5.0})
    given_ = make_rows(0, 1, rows=2, size=3, rewards={"style": 0.25}, reward=0.5)
    plain = make_rows(0, 2, rows=1, size=3, rewards={"style": 0.25})
    release = only_release(run(fresh(), [*named, *given_, *plain]))
    found = {one.experience.sample: (one.reward, dict(one.rewards)) for one in release.samples}
    assert found == {
        0: (0.25, {"style": 0.25, "exact_match": 0.0}),
        1: (0.5, {"style": 0.25, "given": 0.5}),
        2: (0.25, {"style": 0.25, "exact_match": 0.0}),
    }


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Experience], list[bool]]:
    """Several tries of the samples of two groups. Each try is in order, may break off, and mixes with the others."""
    tries = []
    for number in range(2):
        for sample in range(SIZE):
            for attempt in range(draw(st.integers(0, 3))):
                rows = make_rows(number, sample, draw(st.integers(1, 3)), SIZE, attempt)
                tries.append(rows[: draw(st.integers(1, len(rows)))] * draw(st.integers(1, 2)))
    order = [index for index, one in enumerate(tries) for _ in one]
    random.Random(draw(st.integers(0, 2**32))).shuffle(order)
    queues = [iter(one) for one in tries]
    return [next(queues[index]) for index in order], [draw(st.integers(0, 9)) == 0 for _ in order]


@settings(max_examples=300, deadline=None)
@given(histories())
def test_every_row_has_one_outcome_and_trained_samples_are_whole_tries(history):
    experiences, expires = history
    pipeline, actions, now = fresh(), list[Action](), 0
    for offset, (one, late) in enumerate(zip(experiences, expires, strict=True)):
        now += DEADLINE_MS if late else 0
        actions += pipeline.tick(now) + pipeline.receive(received(one, offset), now)
    actions += pipeline.tick(now + DEADLINE_MS)
    outcomes = Counter(
        offset
        for action in actions
        for offset in (action.resolves if isinstance(action, Publish) else (action.offset,))
    )
    assert outcomes == Counter(dict.fromkeys(range(len(experiences)), 1))
    assert pipeline.groups.size_bytes == 0
    releases = [action for action in actions if isinstance(action, Publish)]
    assert len({release.group_id for release in releases}) == len(releases)
    for release in releases:
        ids = [one.experience.experience_id for one in release.samples]
        assert len(set(ids)) == len(ids)
        by_sample = defaultdict(list)
        for one in release.samples:
            by_sample[one.experience.sample].append(one)
        for rows in by_sample.values():
            assert len({one.experience.attempt for one in rows}) == 1
            assert len({(one.reward, one.cause) for one in rows}) == 1
            assert (rows[0].cause is None) == (len(rows) == rows[0].experience.rows)
    trained = {one.experience.sample_id for release in releases for one in release.samples if one.cause is None}
    if not any(expires):
        for number in range(2):
            for sample in range(SIZE):
                if unbroken(experiences, f"train-{number:08d}/{sample}"):
                    assert f"train-{number:08d}/{sample}" in trained


def unbroken(experiences: list[Experience], sample_id: str) -> bool:
    """Return whether all rows of a try came with no row 0 of another in between."""
    held: dict[str, set[int]] = defaultdict(set)
    current = None
    for one in experiences:
        if one.sample_id != sample_id:
            continue
        if one.row == 0 and one.attempt != current:
            held.clear()
            current = one.attempt
        held[one.attempt].add(one.row)
        if one.attempt == current and len(held[current]) == one.rows:
            return True
    return False


def test_a_changelog_whose_rows_have_no_names_is_refused():
    def group(suffix: str, rows: int) -> Waiting:
        return Waiting("g", 1, 0, (WaitingMember(suffix, 1, 1, None, False, 0.0, {}, (), rows, "a"),))

    check_members(group("0/1", 2))
    check_members(group("anything/at/all", 1))
    for suffix, rows in [("0", 2), ("0/x", 2), ("0/2", 2), ("0/0", 0), ("0/0", 2000)]:
        with pytest.raises(DecodeError, match="sample/row"):
            check_members(group(suffix, rows))
