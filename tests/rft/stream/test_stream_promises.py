"""The pipeline keeps its promises about every event, in whatever order events come."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_experiences import MAX_BYTES, make_experience, received, score_exactly

from rft.config import ProcessorConfig
from rft.stream.actions import Action, Publish, Received, Resolve
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import fifo
from rft.stream.rules import Rules
from schemas.codec import decode
from schemas.events import Experience

SIZE = 3
DEADLINE_MS = 10_000


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[Received, int]]:
    """Events of several groups with repetitions, failing ones and garbage among them, in any order, with the time."""
    keys = [(number, sample) for number in range(draw(st.integers(1, 4))) for sample in range(SIZE)]
    repeated = draw(st.lists(st.sampled_from(keys), max_size=8))
    kept = draw(st.lists(st.sampled_from(keys), unique=True, max_size=len(keys)))
    order = draw(st.permutations(kept + repeated + [None] * draw(st.integers(0, 3))))
    raising = draw(st.sets(st.sampled_from(keys), max_size=3))
    events, now = [], 0
    for offset, key in enumerate(order):
        now += draw(st.sampled_from([0, 1, 500, DEADLINE_MS]))
        if key is None:
            events.append((Received(0, offset, b"k", draw(st.binary(max_size=40))), now))
        else:
            response = "raise" if key in raising else "tac"
            events.append((received(make_experience(*key, size=SIZE, response=response), offset), now))
    return events


def fresh() -> Pipeline:
    config = ProcessorConfig(group_deadline_s=DEADLINE_MS / 1000, min_group_size=1)
    return Pipeline(Rules(config, score_exactly, fifo, MAX_BYTES))


def run(pipeline: Pipeline, events: list[tuple[Received, int]]) -> list[Action]:
    actions: list[Action] = []
    for event, now in events:
        actions += pipeline.tick(now)
        actions += pipeline.receive(event, now)
    return actions


def ids(release: Publish) -> set[str]:
    return {scored.experience.experience_id for scored in release.samples}


def outcomes(actions: list[Action]) -> Counter[int]:
    """Count the outcomes of each offset."""
    given: Counter[int] = Counter()
    for action in actions:
        if isinstance(action, Publish):
            given.update(action.resolves)
        elif isinstance(action, Resolve) or action.final:
            given[action.offset] += 1
    return given


@settings(max_examples=200, deadline=None)
@given(streams())
def test_every_event_has_exactly_one_outcome_once_its_group_is_released(events):
    pipeline = fresh()
    actions = run(pipeline, events)
    waiting = {
        scored.offset for group in pipeline.groups for one in group.samples.values() for scored in one.rows.values()
    }
    outcomes_so_far = outcomes(actions)
    assert set(outcomes_so_far) == {event.offset for event, _ in events} - waiting
    actions += pipeline.tick(10**9)
    assert outcomes(actions) == Counter({event.offset: 1 for event, _ in events})
    assert len(pipeline.groups) == 0
    assert pipeline.groups.size_bytes == 0


@settings(max_examples=200, deadline=None)
@given(streams())
def test_each_group_is_released_once_with_all_distinct_samples_that_came_in_time(events):
    pipeline = fresh()
    actions = run(pipeline, events) + pipeline.tick(10**9)
    releases = [action for action in actions if isinstance(action, Publish)]
    assert len({action.group_id for action in releases}) == len(releases)
    released = {action.group_id: ids(action) for action in releases}
    assert all(len(ids(action)) == len(action.samples) for action in releases)
    for action in releases:
        assert {scored.release_size for scored in action.samples} == {len(action.samples)}
        assert len({scored.release_id for scored in action.samples}) == 1
    late = {action.offset for action in actions if isinstance(action, Resolve) and action.cause == "late"}
    came: dict[str, set[str]] = {}
    for event, _ in events:
        if event.key != b"k" and event.offset not in late:
            experience = decode(event.value or b"", Experience)
            came.setdefault(experience.group_id, set()).add(experience.experience_id)
    assert released == came


@settings(max_examples=100, deadline=None)
@given(streams())
def test_a_published_sample_names_the_very_event_that_it_came_from(events):
    values = {event.offset: event for event, _ in events}
    for action in run(fresh(), events):
        if isinstance(action, Publish):
            for scored, offset in zip(action.samples, action.resolves, strict=True):
                assert scored.origin_offset == offset
                origin = values[offset]
                assert origin == received(scored.experience, offset)


@settings(max_examples=100, deadline=None)
@given(streams(), st.integers(0, 30))
def test_events_redelivered_after_a_rebalance_lose_no_sample_and_repeat_no_release(events, cut):
    """Commit up to the first event without an outcome. All events from there on come again."""
    pipeline = fresh()
    first = run(pipeline, events[:cut])
    done = outcomes(first)
    committed = next((event.offset for event, _ in events[:cut] if event.offset not in done), len(events[:cut]))
    pipeline.forget([0])
    assert len(pipeline.groups) == 0
    second = run(pipeline, events[committed:]) + pipeline.tick(10**9)
    releases = [action.group_id for action in first + second if isinstance(action, Publish)]
    assert len(releases) == len(set(releases))
    assert set(outcomes(second)) == {event.offset for event, _ in events[committed:]}
    published = {experience_id for a in first + second if isinstance(a, Publish) for experience_id in ids(a)}
    late = {a.offset for a in first + second if isinstance(a, Resolve) and a.cause == "late"}
    for event, _ in events:
        if event.key != b"k" and event.offset not in late:
            assert decode(event.value or b"", Experience).experience_id in published
