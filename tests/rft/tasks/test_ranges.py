"""RangeSet behaves as a set of integers, in the fewest ranges."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft.tasks.ranges import RangeSet

numbers = st.lists(st.integers(-30, 60), max_size=80)


@given(numbers)
def test_equals_a_plain_set_after_any_insertions(values):
    ranges, plain = RangeSet(), set()
    for value in values:
        assert ranges.add(value) is (value not in plain)
        plain.add(value)
        assert len(ranges) == len(plain)
    assert list(ranges) == sorted(plain)
    assert all((n in ranges) is (n in plain) for n in range(-35, 65))


@given(numbers)
def test_ranges_are_sorted_disjoint_and_never_touch(values):
    ranges = RangeSet(values).ranges()
    assert all(start < stop for start, stop in ranges)
    assert all(left[1] < right[0] for left, right in pairwise(ranges))


@given(st.lists(st.tuples(st.integers(-30, 60), st.integers(-2, 20)), max_size=20))
def test_adding_ranges_equals_adding_their_numbers(spans):
    ranges, plain = RangeSet(), RangeSet()
    for start, length in spans:
        ranges.add_range(start, start + length)
        plain.update(range(start, start + length))
        assert ranges == plain
        assert len(ranges) == len(plain)


@given(numbers)
def test_survives_json(values):
    ranges = RangeSet(values)
    assert RangeSet.from_list(json.loads(json.dumps(ranges.to_list()))) == ranges
    assert len(RangeSet.from_list(ranges.to_list())) == len(ranges)


@given(numbers, st.integers(-30, 60))
def test_first_missing_is_the_lowest_number_outside(values, start):
    ranges = RangeSet(values)
    expected = next(n for n in range(start, 200) if n not in set(values))
    assert ranges.first_missing(start) == expected


@given(numbers, st.integers(-30, 60))
def test_a_copy_is_independent(values, extra):
    ranges = RangeSet(values)
    copy = ranges.copy()
    copy.add(extra)
    assert list(ranges) == sorted(set(values))


@pytest.mark.parametrize("broken", [[[3, 3]], [[5, 2]], [[0, 2], [1, 4]], [[0, 2], [2, 4]], [[4, 5], [0, 1]]])
def test_a_damaged_list_is_refused(broken):
    with pytest.raises(ValueError, match="empty or not beyond"):
        RangeSet.from_list(broken)


def test_update_counts_what_is_new():
    ranges = RangeSet([1, 2])
    assert ranges.update([2, 3, 3, 9]) == 2
    assert ranges.ranges() == [(1, 4), (9, 10)]


def test_a_million_retired_numbers_are_one_range():
    ranges = RangeSet.from_list([[0, 1_000_000]])
    ranges.add(1_000_000)
    assert ranges.to_list() == [[0, 1_000_001]]
