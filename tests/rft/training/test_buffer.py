"""Every event is trained once, dropped once or still held by the buffer, in any order and with any repetition."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import VOCABULARY, scored

from rft.training.batch import StepBatch
from rft.training.buffer import DropCause, GroupBuffer
from rft.training.progress import LogProgress
from rft.training.sample import SampleFilter, read_sample
from schemas.events import EventRef, TrainingStep

AMPLE = 2**30

WANTED = SampleFilter(VOCABULARY, "policy")


def member(number, sample, size=2, *, offset, **changes):
    return read_sample(0, offset, scored(number, sample, size, **changes), WANTED)


def step_of(groups, drops, numbers):
    refs = [EventRef(s.partition, s.offset, s.experience_id, s.number, 0) for g in groups for s in g.trainable]
    dropped = [EventRef(d.sample.partition, d.sample.offset, d.sample.experience_id, d.sample.number, 0) for d in drops]
    return TrainingStep("policy", "step", 1, 0, 1, tuple(refs), tuple(dropped), tuple(numbers), "", {}, 0)


def make_buffer(max_bytes=AMPLE):
    progress = LogProgress({0: 0})
    return GroupBuffer(max_bytes, progress.retired), progress


def causes(buffer):
    drops, numbers, _ = buffer.take_drops()
    return sorted((d.sample.offset, str(d.cause)) for d in drops), numbers


def test_a_group_is_whole_when_all_members_have_come():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0))
    assert buffer.whole_groups == 0
    buffer.add(member(0, 1, offset=1))
    assert buffer.whole_groups == 1
    assert [s.offset for s in buffer.take(1)[0].trainable] == [0, 1]


def test_a_member_seen_twice_counts_once():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0))
    buffer.add(member(0, 0, offset=1))
    assert buffer.whole_groups == 0
    assert causes(buffer) == ([(1, "duplicate")], [])


def test_the_lowest_number_goes_first_unless_priority_says_otherwise():
    buffer, _ = make_buffer()
    offset = iter(range(100))
    for number, priority in ((5, 0.0), (3, 0.0), (9, 1.0), (-1, 0.0)):
        for sample in range(2):
            group = {"group_id": f"g{number}"}
            buffer.add(member(number, sample, offset=next(offset), priority=priority, **group))
    assert [group.number for group in buffer.take(4)] == [9, 3, 5, -1]


def test_a_stale_group_is_dropped_whole_and_its_task_is_reported():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0, version=3))
    buffer.add(member(0, 1, offset=1, version=5))
    buffer.drop_stale(4, 1)
    assert buffer.whole_groups == 1
    buffer.drop_stale(5, 1)
    assert buffer.whole_groups == 0
    assert buffer.has_unreported_tasks
    assert causes(buffer) == ([(0, "stale"), (1, "stale")], [0])
    assert not buffer.has_unreported_tasks


def test_a_group_without_anything_to_train_is_dropped_at_once():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0, verdict="filtered", cause="uniform"))
    buffer.add(member(0, 1, offset=1, verdict="filtered", cause="uniform"))
    assert buffer.whole_groups == 0
    assert causes(buffer) == ([(0, "filtered"), (1, "filtered")], [0])


def test_filtered_members_leave_with_the_group_that_is_trained():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0, verdict="filtered", cause="too_long"))
    buffer.add(member(0, 1, offset=1))
    assert [s.offset for s in buffer.take(1)[0].trainable] == [1]
    assert causes(buffer) == ([(0, "filtered")], [0])


@pytest.mark.parametrize("what", [{"tokens": "beyond"}, {"action_mask": "nothing"}])
def test_a_sample_that_the_model_cannot_be_trained_on_is_filtered(what):
    event = scored(0, 0, 1)
    if "tokens" in what:
        event.experience.tokens[1] = VOCABULARY
    else:
        event.experience.action_mask[1:] = 0
    buffer, _ = make_buffer()
    buffer.add(read_sample(0, 0, event, WANTED))
    assert causes(buffer) == ([(0, "filtered")], [0])


def test_another_release_of_a_trained_group_is_a_duplicate():
    buffer, progress = make_buffer()
    buffer.add(member(0, 0, offset=0, release_id="unfinished", release_size=3))
    buffer.add(member(0, 0, offset=1))
    buffer.add(member(0, 1, offset=2))
    groups = buffer.take(1)
    drops, numbers, duplicates = buffer.take_drops()
    assert [(d.sample.offset, d.cause) for d in drops] == [(0, DropCause.DUPLICATE)]
    assert duplicates == 1
    progress.apply(step_of(groups, drops, numbers))
    buffer.add(member(0, 2, offset=3, release_id="unfinished", release_size=3))
    assert causes(buffer) == ([(3, "duplicate")], [])
    assert len(buffer) == 0


def test_a_release_with_nothing_to_train_does_not_retire_a_task_whose_other_release_waits():
    buffer, _ = make_buffer()
    buffer.add(member(0, 0, offset=0))
    buffer.add(member(0, 1, offset=1))
    late = {"release_id": "late", "release_size": 1, "verdict": "filtered", "cause": "group_too_small"}
    buffer.add(member(0, 2, size=3, offset=2, **late))
    assert buffer.whole_groups == 1
    assert causes(buffer) == ([(2, "filtered")], [])
    assert [s.offset for s in buffer.take(1)[0].trainable] == [0, 1]
    assert causes(buffer) == ([], [0])


def test_a_full_buffer_keeps_pointers_so_that_groups_still_become_whole():
    buffer, _ = make_buffer(max_bytes=1)
    for offset, (number, sample) in enumerate([(0, 0), (1, 0), (2, 0), (1, 1), (0, 1), (2, 1)]):
        buffer.add(member(number, sample, offset=offset))
    assert buffer.whole_groups == 3
    assert buffer.full
    groups = buffer.take(3)
    assert [s.offset for g in groups for s in g.trainable if s.payload is None] == [4, 1, 3, 2, 5]
    assert buffer.held_bytes == 0


arrivals = st.lists(
    st.tuples(
        st.integers(-1, 5),  # task number
        st.integers(0, 3),  # sample
        st.sampled_from(["a", "b"]),  # release
        st.sampled_from([0, 1, 2]),  # version
        st.booleans(),  # filtered
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(arrivals, st.integers(1, 3), st.sampled_from([1, 3000, AMPLE]), st.data())
def test_every_event_has_exactly_one_fate_and_no_task_is_trained_twice(events, groups_per_step, max_bytes, data):
    buffer, progress = make_buffer(max_bytes)
    fates: Counter[int] = Counter()
    trained_ids: Counter[str] = Counter()
    retired: Counter[int] = Counter()
    version = 0
    for offset, (number, sample, release, written, filtered) in enumerate(events):
        size = 3 if release == "a" else 2
        verdict = "filtered" if filtered else "train"
        progress.note_read(0, offset)
        buffer.add(
            member(number, sample, size, offset=offset, group_id=f"g{number}", release_id=release, verdict=verdict,
                   version=written)
        )  # fmt: skip
        if data.draw(st.booleans()):
            version += data.draw(st.integers(0, 1))
            buffer.drop_stale(version, 1)
            groups = buffer.take(groups_per_step) if buffer.whole_groups >= groups_per_step else []
            for group in groups:
                assert len({s.experience_id for s in group.samples.values()}) >= group.size
                assert group.trainable
                assert version - group.oldest_version <= 1
                trained_ids.update(s.experience_id for s in group.trainable)
            drops, numbers, _ = buffer.take_drops()
            fates.update(s.offset for g in groups for s in g.trainable)
            fates.update(d.sample.offset for d in drops)
            retired.update(numbers)
            progress.apply(step_of(groups, drops, numbers))
    drops, _, _ = buffer.take_drops()
    fates.update(d.sample.offset for d in drops)
    held = len(events) - len(fates)
    assert set(fates.values()) <= {1}
    assert len(buffer) == held
    assert set(trained_ids.values()) <= {1}
    assert set(retired.values()) <= {1}
    assert buffer.held_bytes >= 0
    if not held:
        assert buffer.held_bytes == 0
    finished = set(fates) - {d.sample.offset for d in drops}
    assert all((offset not in finished) is progress.note_read(0, offset) for offset in range(len(events)))
    assert progress.positions[0] == next((o for o in range(len(events)) if o not in finished), len(events))


def row(number, sample, row, rows, *, offset, size):
    name = f"train-{number:08d}/{sample}/{row}"
    return member(number, sample, size, offset=offset, experience_id=name, row=row, rows=rows, release_id="r")


def test_a_group_is_whole_with_all_rows_and_its_rows_stand_together_in_order():
    buffer, _ = make_buffer()
    order = [11, 0, 5, 10, 2, 1, 9, 8, 7, 6, 4, 3]
    for offset, number in enumerate(order):
        assert buffer.whole_groups == 0
        buffer.add(row(0, 0, number, 12, offset=offset, size=13))
    buffer.add(member(0, 1, 13, offset=12, release_id="r"))
    [group] = buffer.take(1)
    assert [(one.sample_id.rpartition("/")[2], one.row) for one in group.trainable] == [
        *(("0", n) for n in range(12)),
        ("1", 0),
    ]
    assert len(group.facts.rewards) == 2, "priorities compare samples"
    batch = StepBatch.from_samples(group.trainable)
    assert batch.samples.tolist() == [0] * 12 + [1]


def test_a_sample_with_a_row_that_the_model_cannot_be_trained_on_is_filtered_whole():
    buffer, _ = make_buffer()
    broken = scored(0, 0, 3, experience_id="train-00000000/0/1", row=1, rows=2, release_id="r")
    broken.experience.tokens[1] = VOCABULARY
    buffer.add(row(0, 0, 0, 2, offset=0, size=3))
    buffer.add(read_sample(0, 1, broken, WANTED))
    buffer.add(member(0, 1, 3, offset=2, release_id="r"))
    [group] = buffer.take(1)
    assert [one.offset for one in group.trainable] == [2]
    assert causes(buffer) == ([(0, "filtered"), (1, "filtered")], [0])
    assert buffer.held_bytes == 0
