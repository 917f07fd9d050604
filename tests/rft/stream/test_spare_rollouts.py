"""A group with spare rollouts is released once, with the first that suffice, in whatever order they come."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_experiences import MAX_BYTES, failed_experience, make_experience, received, score_exactly

from rft.config import ProcessorConfig
from rft.stream.actions import Publish, Resolve
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import make_prioritizer
from rft.stream.rules import Rules


def new_pipeline() -> Pipeline:
    return Pipeline(Rules(ProcessorConfig(group_deadline_s=100), score_exactly, make_prioritizer("fifo"), MAX_BYTES))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, list[tuple[int, bool]]]:
    """Return the number of spare ones, and (sample, failed) in order of arrival; some come again, failed or not."""
    size = draw(st.integers(1, 8))
    order = draw(st.permutations(range(size)))
    failed = draw(st.sets(st.integers(0, size - 1)))
    events = [(sample, sample in failed) for sample in order]
    for again in draw(st.lists(st.sampled_from(events), max_size=4)):
        later = (again[0], draw(st.booleans()))
        events.insert(draw(st.integers(events.index(again) + 1, len(events))), later)
    return draw(st.integers(0, size - 1)), events


@settings(deadline=None)
@given(arrivals())
def test_the_first_good_samples_make_the_group_and_each_event_has_one_outcome(case) -> None:
    spare, events = case
    size = len({sample for sample, _ in events})
    pipeline, outcomes, releases = new_pipeline(), [], []
    needed: dict[int, bool] = {}
    for offset, (sample, failed) in enumerate(events):
        made = (failed_experience if failed else make_experience)(0, sample, size)
        if not releases and (sample not in needed or (spare and needed[sample] and not failed)):
            needed[sample] = failed
        for action in pipeline.receive(received(replace(made, spare=spare), offset), 0):
            if isinstance(action, Publish):
                releases.append(action)
                outcomes += action.resolves
            else:
                assert isinstance(action, Resolve)
                outcomes.append(action.offset)
    assert sorted(outcomes) == list(range(len(events)))
    (release,) = releases
    failures = {one.experience.sample: one.experience.finish_reason == "error" for one in release.samples}
    assert list(failures.items()) == list(needed.items())
    good = sum(not failed for failed in failures.values())
    assert len(needed) == size or good == size - spare


def test_late_ones_are_late_and_repeated_ones_duplicates() -> None:
    pipeline = new_pipeline()
    actions = [
        pipeline.receive(received(make_experience(0, sample, 4, spare=2), offset), 0)
        for offset, sample in enumerate((3, 1, 0, 3))
    ]
    assert isinstance(actions[1][0], Publish)
    assert actions[2] == [Resolve(0, 2, "late")]
    assert actions[3] == [Resolve(0, 3, "duplicate")]


def test_a_failed_rollout_that_succeeds_when_it_is_done_again_counts() -> None:
    """An explorer died after the failure was published. The next one does the task again, and cancels the spare one."""
    pipeline = new_pipeline()
    pipeline.receive(received(replace(failed_experience(0, 0, 3), spare=1), 0), 0)
    again, good = (make_experience(0, sample, 3, spare=1) for sample in (0, 1))
    assert pipeline.receive(received(again, 1), 0) == [Resolve(0, 0, "duplicate")]
    (release,) = pipeline.receive(received(good, 2), 0)
    assert isinstance(release, Publish)
    assert [one.verdict for one in release.samples] == ["train", "train"]
    assert pipeline.receive(received(again, 3), 0) == [Resolve(0, 3, "duplicate")]


def test_at_its_deadline_a_group_is_released_with_what_has_come() -> None:
    pipeline = new_pipeline()
    pipeline.receive(received(make_experience(0, 0, 6, spare=2), 0), 0)
    pipeline.receive(received(make_experience(0, 1, 6, spare=2), 1), 0)
    (release,) = pipeline.tick(100_000)
    assert isinstance(release, Publish)
    assert [one.verdict for one in release.samples] == ["train", "train"]
