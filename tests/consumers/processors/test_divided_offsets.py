"""A committed offset tells, in its metadata, which later events belong to groups that are released."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.processors.divided_groups import MAX_METADATA, DividedGroups, decode_offsets, encode_offsets
from consumers.processors.offset_tracker import OffsetTracker

PARTITION = 0


class Source:
    """Holds what a processor commits last."""

    offset, metadata = 0, ""

    async def commit(self, _entity, offsets, metadata):
        self.offset, self.metadata = offsets[PARTITION], metadata[PARTITION]
        return True


def start_tracker(source: Source) -> OffsetTracker:
    tracker = OffsetTracker("experiences")
    tracker.assign([PARTITION])
    tracker.resume(PARTITION, decode_offsets(source.offset, source.metadata))
    return tracker


@settings(max_examples=300, deadline=None)
@given(
    log=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    lives=st.lists(st.integers(1, 25), min_size=1, max_size=5),
    held_back=st.integers(0, 3),
)
def test_a_successor_gets_every_group_whole_or_not_at_all(log, lives, held_back):
    """``log[offset]`` is the event's group. Each life ends, without a word, a few events after its last commit."""
    whole = {group: [at for at, one in enumerate(log) if one == group] for group in log}
    source = Source()

    async def live(events: int) -> dict[int, list[int]]:
        tracker, first = start_tracker(source), source.offset
        came: dict[int, list[int]] = {}
        for count, offset in enumerate(range(first, len(log))):
            tracker.watermark(PARTITION).started(offset)
            if tracker.was_finished(PARTITION, offset):
                tracker.watermark(PARTITION).finished(offset)
                continue
            group = came.setdefault(log[offset], [])
            group.append(offset)
            if group == whole[log[offset]]:
                for at in group:
                    tracker.watermark(PARTITION).finished(at)
                tracker.divided(PARTITION).released(group)
            if count <= events - held_back:
                await tracker.commit(source, lambda _at: None)
        return came

    for events in [*lives, len(log)]:
        came = asyncio.run(live(events))
        assert all(offsets == whole[group] for group, offsets in came.items()), (came, whole)


@given(st.integers(0, 2**40), st.sets(st.integers(0, 2**20), max_size=200))
def test_metadata_gives_back_the_offsets(committed, distances):
    offsets = sorted(committed + distance for distance in distances)
    metadata = encode_offsets(committed, [(offset,) for offset in offsets], limit=10**6)
    assert decode_offsets(committed, metadata) == set(offsets)
    assert bool(metadata) == bool(offsets)


def test_metadata_stays_within_the_limit_and_holds_whole_groups():
    groups = [tuple(range(start, start + 64 * (1 + start % 7), 64)) for start in range(10, 3000)]
    metadata = encode_offsets(0, groups)
    assert len(metadata) <= MAX_METADATA
    found = decode_offsets(0, metadata)
    assert len(found) > 1000
    kept = [group for group in groups if found.issuperset(group)]
    assert {offset for group in kept for offset in group} == found


@pytest.mark.parametrize("metadata", ["", None, "someone else's", "rft1:", "rft1:%%%", "rft1:gICA", "rft2:AQ=="])
def test_metadata_that_is_not_ours_or_damaged_says_nothing(metadata):
    assert decode_offsets(7, metadata) == frozenset()


def test_what_lies_before_the_committed_offset_is_forgotten():
    divided = DividedGroups([3, 9])
    divided.released([1, 4])
    divided.released([5, 12])
    assert divided.behind(4) == [(4,), (9,)]
    assert divided.behind(10) == [(12,)]
    assert not divided.holds(3)
