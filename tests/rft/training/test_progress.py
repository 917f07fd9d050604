"""Progress is a fold of published steps: what they do not name is read again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from rft.training import progress as module
from rft.training.progress import LogProgress
from schemas.events import EventRef, TrainingStep


def step(positions, *, retired=(), number=0, ids=None):
    refs = tuple(EventRef(p, o, ids[i] if ids else f"{p}:{o}", number, 0) for i, (p, o) in enumerate(positions))
    return TrainingStep("policy", "step", 1, 0, 1, refs[::2], refs[1::2], tuple(retired), "", {}, 0)


def test_the_position_waits_for_the_lowest_unfinished_event():
    progress = LogProgress({0: 10, 1: 0})
    progress.apply(step([(0, 11), (0, 12)]))
    assert progress.positions == {0: 10, 1: 0}
    progress.apply(step([(0, 10)]))
    assert progress.positions == {0: 13, 1: 0}


def test_finished_events_above_the_position_are_not_taken_in_again():
    progress = LogProgress({0: 0})
    progress.apply(step([(0, 1)]))
    progress.rewind()
    assert [progress.note_read(0, offset) for offset in range(3)] == [True, False, True]


def test_offsets_without_an_event_do_not_hold_the_position():
    progress = LogProgress({0: 0})
    for offset in (0, 1, 3):
        progress.note_read(0, offset)
    progress.apply(step([(0, 0), (0, 1), (0, 3)]))
    assert progress.positions == {0: 4}


def test_an_event_that_is_not_for_training_is_finished_without_a_step():
    progress = LogProgress({0: 0})
    assert progress.note_read(0, 0)
    progress.finish(0, 0)
    assert progress.positions == {0: 1}


def test_partitions_that_a_topic_gains_are_read_from_their_beginning():
    progress = LogProgress({0: 5})
    progress.add_partitions({0: 0, 1: 2})
    assert progress.positions == {0: 5, 1: 2}
    assert progress.note_read(1, 2)


def test_numbered_tasks_retire_by_number_and_others_by_id(monkeypatch):
    monkeypatch.setattr(module, "MAX_UNNUMBERED", 2)
    progress = LogProgress({0: 0})
    progress.apply(step([(0, 0)], retired=[7], number=7, ids=["train/0"]))
    progress.apply(step([(0, 1), (0, 2), (0, 3)], number=-1, ids=["x", "y", "z"]))
    assert progress.retired.has(7, "another id")
    assert not progress.retired.has(8, "train/0")
    assert [progress.retired.has(-1, name) for name in "xyz"] == [False, True, True]


events = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=20, unique=True)


@given(st.lists(st.tuples(events, st.lists(st.integers(0, 40), max_size=5), st.integers(-1, 3)), max_size=8))
def test_a_restored_progress_is_the_same_and_goes_on_the_same(steps):
    progress = LogProgress({0: 0, 1: 3, 2: 0})
    for positions, retired, number in steps:
        progress.apply(step(positions, retired=retired, number=number))
    restored = LogProgress.from_json(json.loads(json.dumps(progress.to_json())))
    for state in (progress, restored):
        state.rewind()
        state.apply(step([(0, 31), (1, 31)], retired=[99]))
    assert restored.to_json() == progress.to_json()
    assert restored.positions == progress.positions
