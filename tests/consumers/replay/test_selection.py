"""Tests that a selection selects what its conditions say, and that equal selections give equal batches."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selected_events import SAMPLES, selected_event

from consumers.replay import SelectionError
from consumers.replay.batches import ReplayGroups, batches_digest
from consumers.replay.selected_event import SelectedEvent
from consumers.replay.selection import Range, Selection, parse_offsets
from rft.training.sample import SampleFilter
from tests.synthetic import VOCABULARY

ENDS = {0: 100, 1: 200}
BEGINS = {0: 10, 1: 0}


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("3:5", (3, 5), (2, 6)),
        ("3:", (3, 99), (2,)),
        (":5", (0, 5), (6, -1)),
        ("4", (4,), (3, 5)),
        (":", (0, 9), (-1,)),
    ],
)
def test_both_ends_of_a_range_are_included(text: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    parsed = Range.parse(text, "--steps")
    assert all(number in parsed for number in inside)
    assert not any(number in parsed for number in outside)


@pytest.mark.parametrize("text", ["5:3", "a:b", "", "1:2:3", "-1:3"])
def test_an_invalid_range_is_refused(text: str) -> None:
    with pytest.raises(SelectionError, match="--steps"):
        Range.parse(text, "--steps")


@pytest.mark.parametrize("texts", [["3:5"], ["x=3:5"], ["0=1:2", "0=3:4"], ["0=z"]])
def test_invalid_offsets_are_refused(texts: list[str]) -> None:
    with pytest.raises(SelectionError, match="--offsets"):
        parse_offsets(texts)


def test_named_partitions_are_read_in_their_range_and_others_not_at_all() -> None:
    selection = Selection(offsets=parse_offsets(["1=5:9"]))
    assert selection.bounds(BEGINS, ENDS) == ({0: 10, 1: 5}, {0: 10, 1: 10})
    assert Selection(offsets=parse_offsets(["0=:"])).bounds(BEGINS, ENDS) == ({0: 10, 1: 0}, {0: 100, 1: 0})
    assert Selection().bounds(BEGINS, ENDS) == (BEGINS, ENDS)
    with pytest.raises(SelectionError, match="no partition 7"):
        Selection(offsets=parse_offsets(["7=5:9"])).bounds(BEGINS, ENDS)


def written(event: SelectedEvent) -> int:
    return int(event.scored.experience.action_mask.sum())


def test_versions_hold_for_every_token_that_the_policy_wrote() -> None:
    one = next(selected_event(1, n, version=3) for n in range(9) if written(selected_event(1, n)) > 1).scored.experience
    mixed = replace(one, versions=np.append(one.versions[:-1], np.int32(4)))
    assert Selection(versions=Range(3, 3)).matches_versions(one)
    assert Selection(versions=Range(3, 4)).matches_versions(mixed)
    assert not Selection(versions=Range(3, 3)).matches_versions(mixed)
    assert not Selection(versions=Range(4, 4)).matches_versions(mixed)


def test_times_include_their_beginning_and_not_their_end() -> None:
    selection = Selection(since_ms=10, until_ms=20)
    assert [selection.matches_time(ms) for ms in (9, 10, 19, 20)] == [False, True, True, False]


def grouped(events: list[SelectedEvent], max_bytes: int = 2**30) -> ReplayGroups:
    groups = ReplayGroups(max_bytes, SampleFilter(VOCABULARY, "policy"))
    for event in events:
        groups.add(event)
    return groups


EVENTS = [selected_event(number, sample) for sample in range(SAMPLES) for number in range(5)]


@given(st.lists(st.sampled_from(EVENTS), unique_by=id), st.integers(1, 4), st.integers(0, 2**20))
def test_the_same_events_give_the_same_batches_whatever_memory_allows(
    events: list[SelectedEvent], per_step: int, max_bytes: int
) -> None:
    first, second = (
        grouped(events, size).batches(per_step, min_size=2, drop_uniform=False) for size in (2**30, max_bytes)
    )
    assert batches_digest(first) == batches_digest(second)
    assert [[s.position for s in batch] for batch in first] == [[s.position for s in batch] for batch in second]


@given(st.lists(st.sampled_from(EVENTS), unique_by=id), st.integers(1, 4), st.integers(1, 3))
def test_a_batch_is_whole_groups_in_order_of_their_first_member_and_loses_none(
    events: list[SelectedEvent], per_step: int, min_size: int
) -> None:
    groups = grouped(events)
    batches = groups.batches(per_step, min_size=min_size, drop_uniform=False)
    order = list(dict.fromkeys(event.scored.experience.group_id for event in events))
    trained = [sample.experience_id for batch in batches for sample in batch]
    sizes = {group: sum(e.scored.experience.group_id == group for e in events) for group in order}
    kept = [group for group in order if sizes[group] >= min_size]
    assert trained == sorted(trained, key=lambda name: (kept.index(name.split("/")[0]), name))
    assert len(trained) + groups.skipped["group_too_small"] == len(events)
    numbers = [len({sample.group_id for sample in batch}) for batch in batches]
    assert numbers[:-1] == [per_step] * max(0, len(numbers) - 1)


@given(st.randoms(use_true_random=False))
def test_the_digest_changes_with_the_order_and_with_a_reward(shuffler: random.Random) -> None:
    batches = grouped(EVENTS).batches(2, min_size=1, drop_uniform=False)
    other = batches[:]
    shuffler.shuffle(other)
    assert (batches_digest(other) == batches_digest(batches)) is (other == batches)
    changed = grouped([selected_event(0, 0, reward=9.0), *EVENTS[1:]]).batches(2, min_size=1, drop_uniform=False)
    assert batches_digest(changed) != batches_digest(batches)


def test_held_out_filtered_and_untrainable_events_are_counted_and_not_trained() -> None:
    groups = grouped(
        [
            selected_event(0, 0, split="eval"),
            selected_event(0, 1, verdict="filtered", cause="too_long"),
            selected_event(0, 2),
            selected_event(0, 3),
            selected_event(1, 0, reward=1.0),
            selected_event(1, 1, reward=1.0),
            selected_event(2, 0),
        ]
    )
    groups.batches(1, min_size=2, drop_uniform=True)
    assert groups.skipped["held_out"] == groups.skipped["too_long"] == 1
    assert groups.skipped["uniform"] >= 2
    assert groups.skipped["group_too_small"] == 1
