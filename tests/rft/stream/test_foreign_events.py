"""Events of other people's producers: wrong partitions, ids, sizes and clocks are named and harm no other event."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2
from stream_experiences import MAX_BYTES, make_experience, score_exactly

from rft.config import ProcessorConfig
from rft.log.record_checks import key_partition
from rft.stream.actions import DeadLetter, Publish, Received
from rft.stream.clock_skew import TOLERANCE_MS, ClockSkew
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import encode
from schemas.events import Experience, Reward

HOUR_MS = 3_600_000
NOW_MS = 2_000_000_000_000
PARTITIONS = 4


def pipeline(**settings: Any) -> Pipeline:
    config = ProcessorConfig.model_validate({"min_group_size": 1, **settings})
    return Pipeline(Rules(config, score_exactly, fifo, MAX_BYTES, partitions=PARTITIONS, max_age_ms=336 * HOUR_MS))


def event(experience: Experience, offset: int = 0, **fields: Any) -> Received:
    key = experience.group_id.encode()
    values: dict[str, Any] = {"partition": key_partition(key, PARTITIONS), "timestamp_ms": NOW_MS}
    values |= fields
    return Received(offset=offset, key=key, value=encode(experience), **values)


def only_letter(actions: list[Any]) -> DeadLetter:
    [letter] = actions
    assert isinstance(letter, DeadLetter)
    assert letter.final
    return letter


@given(st.binary(max_size=40), st.integers(1, 50))
def test_a_keys_partition_is_the_one_that_kafkas_producers_choose(key: bytes, partitions: int) -> None:
    assert key_partition(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(
    ("key", "partition"), [(b"train-00000000", 0), (b"train-00000001", 3), (b"train-00000002", 3), (b"", 1)]
)
def test_a_keys_partition_does_not_change_with_a_library(key: bytes, partition: int) -> None:
    assert key_partition(key, 4) == partition


def test_an_experience_in_another_partition_than_its_keys_is_a_dead_letter_that_names_both() -> None:
    right = event(make_experience(7, size=1))
    wrong = (right.partition + 1) % PARTITIONS
    letter = only_letter(pipeline().receive(replace(right, partition=wrong), NOW_MS))
    assert letter.stage == "validate"
    assert f"partition: is {wrong}" in str(letter.error)
    assert f"belongs to partition {right.partition} of {PARTITIONS}" in str(letter.error)
    assert "murmur2" in str(letter.error)


def test_a_reward_in_another_partition_than_its_keys_is_a_dead_letter_at_once() -> None:
    value = encode(Reward("train-00000007/0", "train-00000007", "human", 1.0, NOW_MS))
    right = key_partition(b"train-00000007", PARTITIONS)
    wrong = (right + 1) % PARTITIONS
    one = pipeline(external={"required": ["human"]}, rewards=[])
    letter = only_letter(one.receive_reward(Received(wrong, 0, b"train-00000007", value), NOW_MS))
    assert (letter.stage, letter.source) == ("validate", "rewards")
    assert f"belongs to partition {right} of {PARTITIONS}" in str(letter.error)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sample": 4}, "sample"),
        ({"sample": -1}, "sample"),
        ({"group_id": "a/b", "experience_id": "a/b/0"}, "group_id"),
        ({"group_id": "a\0b", "experience_id": "a\0b/0"}, "group_id"),
        ({"group_id": "a\nb", "experience_id": "a\nb/0"}, "group_id"),
        ({"experience_id": "train-00000000/0\0"}, "experience_id"),
    ],
)
def test_an_experience_with_an_impossible_id_or_sample_is_a_dead_letter_that_names_the_field(
    fields: dict[str, Any], field: str
) -> None:
    letter = only_letter(pipeline().receive(event(replace(make_experience(0, 0, 4), **fields)), NOW_MS))
    assert letter.stage == "validate"
    assert str(letter.error).startswith(f"{field}: ")


@pytest.mark.parametrize("settings", [{}, {"external": {"required": ["human"]}, "rewards": []}])
def test_an_experience_that_names_another_group_size_is_a_dead_letter_and_its_group_is_released_whole(
    settings: dict[str, Any],
) -> None:
    one = pipeline(**settings)
    assert one.receive(event(make_experience(0, 0, 2), 0), NOW_MS) == []
    letter = only_letter(one.receive(event(make_experience(0, 1, 3), 1), NOW_MS))
    assert "group_size: is 3, but the first experience of group 'train-00000000' says 2" in str(letter.error)
    released = one.receive(event(make_experience(0, 1, 2), 2), NOW_MS)
    if not settings:
        [publish] = released
        assert isinstance(publish, Publish)
        assert {sample.cause for sample in publish.samples} == {None}
    assert one.counts["late"] == 0


CLOCKS = {"1970": NOW_MS - 1000, "8 days behind": 8 * 24 * HOUR_MS, "2 h ahead": -2 * HOUR_MS, "none": NOW_MS + 1}


@pytest.mark.parametrize("behind_ms", CLOCKS.values(), ids=CLOCKS)
def test_a_group_from_a_wrong_clock_waits_as_long_as_any_other(behind_ms: int) -> None:
    """Its deadline has not passed at once, which would filter the first sample and leave the others late."""
    one = pipeline(external={"required": ["human"], "deadline_s": 3600}, rewards=[], group_deadline_s=300)
    for source in ("experiences", "rewards"):
        for partition in range(PARTITIONS):
            one.clocks.assigned(source, partition, 0)
    stamp = NOW_MS - behind_ms
    for sample in range(2):
        assert one.receive(event(make_experience(0, sample, 2), sample, timestamp_ms=stamp), NOW_MS + sample) == []
        assert [type(action) for action in one.tick(NOW_MS + sample)] == []
    expected = {"ahead": behind_ms < 0, "behind": 0 < behind_ms < NOW_MS}
    assert {name: one.counts[f"clock:{name}"] == 2 for name in expected} == expected


def test_a_backlog_keeps_its_own_times_and_a_clock_behind_the_others_is_measured(caplog: Any) -> None:
    clocks = ClockSkew(counts := Counter(), 24 * HOUR_MS)
    clocks.assigned("experiences", 0, 100)
    hour_ago = NOW_MS - HOUR_MS

    def published(offset: int, stamp: int) -> int:
        headers = (("ce_source", b"judge-3"),)
        return clocks.published_ms("experiences", Received(0, offset, b"k", b"v", headers, stamp), NOW_MS)

    assert published(0, hour_ago) == hour_ago
    assert published(1, hour_ago - 2 * HOUR_MS) == hour_ago, "it was not written before the event before it"
    assert published(2, hour_ago + 5) == hour_ago + 5
    assert published(3, NOW_MS + 2 * HOUR_MS) == NOW_MS
    assert published(100, NOW_MS - TOLERANCE_MS) == NOW_MS
    assert counts == {"clock:behind": 1, "clock:ahead": 1}
    assert (clocks.ahead_ms, clocks.behind_ms) == (2 * HOUR_MS, 2 * HOUR_MS)
    assert "7200 s behind" in caplog.text
    assert "judge-3" in caplog.text


@given(st.lists(st.tuples(st.integers(-1, NOW_MS * 2), st.integers(0, 10**9)), max_size=30), st.integers(0, 30))
def test_no_timestamp_moves_an_event_before_its_predecessor_or_after_its_arrival(
    events: list[tuple[int, int]], end: int
) -> None:
    clocks, now, last = ClockSkew(Counter(), 336 * HOUR_MS), NOW_MS, 0
    clocks.assigned("experiences", 0, end)
    for offset, (stamp, later) in enumerate(events):
        now += later
        found = clocks.published_ms("experiences", Received(0, offset, b"k", b"v", timestamp_ms=stamp), now)
        assert last <= found <= now
        last = found
