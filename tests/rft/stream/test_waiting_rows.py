"""Samples of several rows wait for rewards as others do: one reward for all rows, through any restarts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_experiences import make_experience, make_rows, received
from waiting_world import World, reward

from rft.stream.actions import Received
from rft.stream.deleted_samples import deleted_samples
from schemas.codec import encode
from schemas.events import Reward

EXTERNAL = {"required": ["human"], "deadline_s": 10}


def send_reward(world: World, one: Reward) -> None:
    world.write("rewards", Received(0, len(world.logs["rewards"]), one.group_id.encode(), encode(one)))


def send_rows(world: World, number: int, sample: int, rows: int, attempt: int = 0, **fields: object) -> None:
    for one in make_rows(number, sample, rows, 2, attempt, **fields):
        world.write("experiences", received(one, len(world.logs["experiences"])))


def read_all(world: World, now: int = 0) -> None:
    for what in ("experiences", "rewards"):
        while world.read[what] < len(world.logs[what]):
            world.feed(what, now)


def for_row(one: Reward, row: int) -> Reward:
    return replace(one, experience_id=f"{one.experience_id}/{row}")


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("named", ["sample", "last row"])
def test_one_reward_is_that_of_all_rows_before_and_after_they_come(early, named):
    world = World(EXTERNAL, rewards=[])
    one = reward(0, 0, 0.75)
    if early:
        send_reward(world, one if named == "sample" else for_row(one, 2))
        read_all(world)
    send_rows(world, 0, 0, 3)
    send_rows(world, 0, 1, 1)
    send_reward(world, reward(0, 1, 0.5))
    read_all(world)
    if not early:
        assert world.published == []
        send_reward(world, one if named == "sample" else for_row(one, 2))
        read_all(world)
    [publish] = world.published
    found = Counter((row.experience.sample, row.reward, row.cause) for row in publish.samples)
    assert found == {(0, 0.75, None): 3, (1, 0.5, None): 1}


def test_a_reward_for_an_earlier_row_is_not_used_and_is_counted():
    world = World(EXTERNAL, rewards=[])
    send_rows(world, 0, 0, 3)
    send_rows(world, 0, 1, 1)
    for one in (reward(0, 1, 0.5), for_row(reward(0, 0, 0.75), 0)):
        send_reward(world, one)
    read_all(world)
    assert world.published == []
    send_reward(world, reward(0, 0, 0.25))
    read_all(world)
    [publish] = world.published
    assert {row.reward for row in publish.samples if row.experience.sample == 0} == {0.25}
    assert world.pipeline.counts["reward:unclaimed"] == 1


def test_a_named_reward_of_the_producer_is_its_sources_until_that_source_sends_another():
    for sent, expected in [(None, 0.25), (0.75, 0.75)]:
        world = World(EXTERNAL, rewards=[])
        if sent is not None:
            send_reward(world, reward(0, 0, sent))
            read_all(world)
        send_rows(world, 0, 0, 2, rewards={"human": 0.25})
        send_rows(world, 0, 1, 1, rewards={"human": 0.5, "style": 1.0})
        read_all(world)
        [publish] = world.published
        assert {row.reward for row in publish.samples if row.experience.sample == 0} == {expected}
        assert {row.reward for row in publish.samples if row.experience.sample == 1} == {1.5}


def test_all_rows_of_a_sample_without_its_reward_are_dead_letters_at_the_deadline():
    world = World({**EXTERNAL, "on_missing": "dead_letter"}, rewards=[])
    send_rows(world, 0, 0, 3)
    send_rows(world, 0, 1, 1)
    send_reward(world, reward(0, 1, 0.5))
    read_all(world)
    world.perform(world.pipeline.tick(20_000), 20_000)
    assert world.letters == [(0, "reward"), (1, "reward"), (2, "reward")]
    [publish] = world.published
    assert Counter(row.cause for row in publish.samples) == {"reward_missing": 3, None: 1}


def test_a_sample_that_lacks_a_row_holds_nobody_up_beyond_the_deadline_of_samples():
    world = World({"required": ["human"], "deadline_s": 1000}, rewards=[], group_deadline_s=1)
    whole, part = make_experience(0, 1, 2), make_rows(0, 0, 3, 2)[:2]
    for one in (whole, *part):
        world.write("experiences", received(one, len(world.logs["experiences"])))
    send_reward(world, reward(0, 1, 0.5))
    read_all(world)
    world.perform(world.pipeline.tick(500), 500)
    assert world.published == []
    world.perform(world.pipeline.tick(5_000), 5_000)
    [publish] = world.published
    assert Counter((row.cause, row.reward) for row in publish.samples) == {("rows_missing", 0.0): 2, (None, 0.5): 1}


def test_a_deleted_sample_keeps_its_rows():
    world = World(EXTERNAL, rewards=[])
    send_rows(world, 0, 0, 2)
    read_all(world)
    [(_, dirty)] = world.pipeline.room._stores[0].dirty.items()
    made = [one.experience for one in deleted_samples(dirty.waiting, 0)]
    assert [(one.experience_id, one.row, one.rows) for one in made] == [
        ("train-00000000/0/0", 0, 2),
        ("train-00000000/0/1", 1, 2),
    ]


def test_a_group_of_more_rows_than_one_changelog_event_holds_refuses_the_rest():
    world = World(EXTERNAL, rewards=[])
    assert world.pipeline.room._max_group_size == 64
    send_rows(world, 0, 0, 70)
    read_all(world)
    assert world.letters == [(offset, "validate") for offset in range(64, 70)]


GROUPS, SIZE = 2, 2


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Whole tries of each sample, each in order, with rewards, readings, saves, commits and kills between the rows."""
    steps: list[tuple[str, object]] = []
    for number in range(GROUPS):
        for sample in range(SIZE):
            steps += [("try", (number, sample, attempt)) for attempt in range(draw(st.integers(1, 2)))]
            steps += [("reward", (number, sample, revision)) for revision in range(draw(st.integers(1, 2)))]
    steps += [("read experiences", None)] * draw(st.integers(0, 20)) + [("read rewards", None)] * draw(
        st.integers(0, 9)
    )
    for name in ("save", "commit", "kill"):
        steps += [(name, None)] * draw(st.integers(0, 4))
    return draw(st.permutations(steps))


@settings(max_examples=300, deadline=None)
@given(histories(), st.data())
def test_groups_are_released_once_with_whole_tries_through_any_restarts(history, data):
    world = World(EXTERNAL, rewards=[])
    sent: dict[str, set[float]] = {}
    for name, what in history:
        if name == "try":
            rows = data.draw(st.integers(1, 3))
            made = make_rows(*what[:2], rows, SIZE, what[2])
            broken = data.draw(st.integers(0, rows - 1))
            for one in [*made[:broken], *make_rows(*what[:2], rows, SIZE, what[2] + 10)]:
                world.write("experiences", received(one, len(world.logs["experiences"])))
                if data.draw(st.booleans()):
                    world.feed("experiences", 0)
        elif name == "reward":
            number, sample, revision = what
            one = reward(number, sample, 0.25 + revision, revision=revision)
            send_reward(world, one)
            sent.setdefault(one.experience_id, set()).add(one.value)
        elif name.startswith("read"):
            world.feed(name.split()[1], 0)
        elif name == "save":
            world.perform(list(world.pipeline.room.flush()), 0)
        elif name == "commit":
            world.commit(0)
        else:
            world.kill()
    world.finish(0)
    assert sorted(one.group_id for one in world.published) == [f"train-{n:08d}" for n in range(GROUPS)]
    for publish in world.published:
        samples: dict[str, list] = {}
        for scored in publish.samples:
            samples.setdefault(scored.experience.sample_id, []).append(scored)
            assert world.logs["experiences"][scored.origin_offset] == received(scored.experience, scored.origin_offset)
        assert len(samples) == SIZE
        for name, rows in samples.items():
            assert [row.experience.row for row in rows] == list(range(rows[0].experience.rows))
            assert len({row.experience.attempt for row in rows}) == 1
            assert {row.cause for row in rows} == {None}
            [value] = {row.reward for row in rows}
            assert value in sent[name]
    assert all(world.position(what) == len(log) for what, log in world.logs.items())
    world.kill()
    world.finish(0)
    assert len(world.published) == GROUPS
