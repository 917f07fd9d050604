"""No offset is committed before everything up to it is finished, and in the end every offset is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft.log.watermark import OffsetWatermark


def test_nothing_is_committable_before_the_first_event() -> None:
    assert OffsetWatermark().committable is None


def test_a_slow_event_holds_back_the_commit_but_not_the_count() -> None:
    mark = OffsetWatermark()
    for offset in (10, 11, 12):
        mark.started(offset)
    mark.finished(11)
    mark.finished(12)
    assert (mark.committable, mark.in_flight) == (10, 1)
    mark.finished(10)
    assert (mark.committable, mark.in_flight) == (13, 0)


def test_an_event_of_a_partition_that_left_is_ignored() -> None:
    mark = OffsetWatermark()
    mark.finished(3)
    assert mark.committable is None


def test_gaps_of_a_compacted_log_are_passed_over() -> None:
    mark = OffsetWatermark()
    for offset in (2, 9):
        mark.started(offset)
    mark.finished(2)
    assert mark.committable == 9


def test_a_redelivered_event_holds_the_commit_again() -> None:
    mark = OffsetWatermark()
    mark.started(5)
    mark.finished(5)
    mark.started(5)
    assert mark.committable == 5
    mark.finished(5)
    assert mark.committable == 6


@given(st.sets(st.integers(0, 200), min_size=1), st.randoms())
def test_the_commit_never_passes_an_unfinished_event(offsets: set[int], random: object) -> None:
    mark = OffsetWatermark()
    for offset in sorted(offsets):
        mark.started(offset)
    order = sorted(offsets)
    random.shuffle(order)  # type: ignore[attr-defined]
    unfinished = set(offsets)
    for offset in order:
        mark.finished(offset)
        unfinished.discard(offset)
        assert mark.committable == (min(unfinished) if unfinished else max(offsets) + 1)
