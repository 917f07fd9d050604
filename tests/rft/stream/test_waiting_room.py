"""External rewards join their experiences in whatever order events come, and through restarts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_experiences import failed_experience, make_experience, received
from waiting_world import World, make, reward

from rft.config import ExternalRewardsConfig
from rft.stream.actions import DeadLetter, Publish, Received
from rft.stream.deadline_queue import DeadlineQueue
from schemas.codec import decode, encode
from schemas.events import Reward, Waiting

DAY_MS = 24 * 3600 * 1000


GROUPS, SIZE = 3, 2
SAMPLES = [(number, sample) for number in range(GROUPS) for sample in range(SIZE)]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, object]]:
    """Experiences and rewards, each at least once, repeated and revised, with what the worker does, in any order."""
    steps: list[tuple[str, object]] = [("experience", key) for key in SAMPLES]
    steps += [("experience", draw(st.sampled_from(SAMPLES))) for _ in range(draw(st.integers(0, 3)))]
    steps += [("reward", (*key, source, 0)) for key in SAMPLES for source in ("human", "tests")]
    again = st.tuples(st.sampled_from(SAMPLES), st.sampled_from(["human", "tests", "other"]), st.integers(0, 2))
    steps += [("reward", (*key, source, revision)) for key, source, revision in draw(st.lists(again, max_size=6))]
    steps += [("read experiences", None), ("read rewards", None)] * draw(st.integers(0, 20))
    for name in ("save", "commit", "kill"):
        steps += [(name, None)] * draw(st.integers(0, 4))
    return draw(st.permutations(steps))


def value_of(number: int, sample: int, source: str, revision: int) -> float:
    return number * 1000 + sample * 100 + revision * 10 + (1 if source == "tests" else 2)


@settings(max_examples=300, deadline=None)
@given(histories())
def test_each_group_is_released_exactly_once_with_rewards_of_every_source_through_any_restarts(history):
    world = World({"required": ["human", "tests"]}, rewards=[])
    revisions: dict[tuple[int, int, str], set[int]] = {}
    for name, what in history:
        if name == "experience":
            world.write("experiences", received(make_experience(*what, size=SIZE), len(world.logs["experiences"])))
        elif name == "reward":
            number, sample, source, revision = what
            one = reward(number, sample, value_of(*what), source, revision)
            world.write("rewards", Received(0, len(world.logs["rewards"]), one.group_id.encode(), encode(one)))
            revisions.setdefault((number, sample, source), set()).add(revision)
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
    for scored in (scored for one in world.published for scored in one.samples):
        key = scored.experience.number, scored.experience.sample
        assert scored.cause is None
        for source in ("human", "tests"):
            possible = {value_of(*key, source, revision) for revision in revisions[*key, source]}
            assert scored.rewards[source] in possible
        assert scored.reward == scored.rewards["human"] + scored.rewards["tests"]
        assert scored.origin_offset >= 0
        assert world.logs["experiences"][scored.origin_offset] == received(scored.experience, scored.origin_offset)
    assert all(world.position(what) == len(log) for what, log in world.logs.items())
    world.kill()
    world.finish(0)
    assert len(world.published) == GROUPS
    assert len(world.pipeline.room) == 0 or all(not decode(v, Waiting).group_size for v in world.changelog.values())


@given(st.permutations(range(4)), st.sampled_from([0, 1, 2]))
def test_the_last_revision_of_each_source_counts_whatever_the_order(order, before):
    """``before``: whether the experience comes first, in between, or last."""
    world = World({"required": ["human"]}, rewards=[])
    turn = {0: 0, 1: 2, 2: 4}[before]
    waiting_for = reward(0, 1, 0.0)
    for n in range(5):
        if n == turn:
            world.perform(world.pipeline.receive(received(make_experience(0, 0, size=2), 0), 0), 0)
            world.logs["experiences"].append(received(make_experience(0, 0, size=2), 0))
        if n < 4:
            one = reward(0, 0, float(order[n]), revision=order[n])
            world.perform(world.pipeline.receive_reward(Received(0, n, b"train-00000000", encode(one)), 0), 0)
    last = received(make_experience(0, 1, size=2), 1)
    world.logs["experiences"].append(last)
    world.perform(world.pipeline.receive(last, 0), 0)
    assert world.published == []
    world.perform(world.pipeline.receive_reward(Received(0, 9, b"train-00000000", encode(waiting_for)), 0), 0)
    [published] = world.published
    assert published.samples[0].rewards["human"] == 3.0


def joined(external: dict, given_: list[Reward], **settings_: object) -> Publish:
    world = World({"deadline_s": 10, **external}, **{"group_deadline_s": 1, **settings_})
    for sample in range(2):
        world.write("experiences", received(make_experience(0, sample, size=2), sample))
    for offset, one in enumerate(given_):
        world.write("rewards", Received(0, offset, one.group_id.encode(), encode(one)))
    world.finish(1)
    world.perform(world.pipeline.tick(DAY_MS), DAY_MS)
    [published] = world.published
    assert [stage for _, stage in world.letters] == (
        ["reward"] * sum(m.cause == "reward_missing" for m in published.samples)
        if external.get("on_missing") == "dead_letter"
        else []
    )
    return published


BOTH = [reward(0, 0, 2.0), reward(0, 1, 3.0)]
TESTS = [reward(0, 1, 5.0, "tests")]


@pytest.mark.parametrize(
    ("external", "given_", "settings_", "rewards"),
    [
        ({"required": ["human"]}, BOTH, {}, [2.0, 4.0]),
        ({"required": ["human"]}, BOTH, {"rewards": []}, [2.0, 3.0]),
        ({"required": ["human"], "weights": {"human": 2, "functions": 0.5}}, BOTH, {}, [4.0, 6.5]),
        ({"required": ["human"], "combine": "product"}, BOTH, {}, [0.0, 3.0]),
        ({"required": ["human"], "combine": "product"}, BOTH, {"rewards": []}, [2.0, 3.0]),
        ({"required": ["human"], "optional": ["tests"]}, TESTS + BOTH, {"rewards": []}, [2.0, 8.0]),
        ({"required": ["human"]}, TESTS + BOTH, {"rewards": []}, [2.0, 3.0]),
    ],
)
def test_several_rewards_combine_as_configured(external, given_, settings_, rewards):
    assert [scored.reward for scored in joined(external, given_, **settings_).samples] == rewards


@pytest.mark.parametrize(
    ("on_missing", "causes", "rewards"),
    [
        ("default", [None, None], [2.0, -1.0]),
        ("without", [None, "reward_missing"], [2.0, 0.0]),
        ("discard", ["reward_missing", "reward_missing"], [2.0, 0.0]),
        ("dead_letter", [None, "reward_missing"], [2.0, 0.0]),
    ],
)
def test_at_the_deadline_the_policy_decides(on_missing, causes, rewards):
    external = {"required": ["human"], "on_missing": on_missing, "default_value": -1.0}
    published = joined(external, BOTH[:1], rewards=[])
    assert [scored.cause for scored in published.samples] == causes
    assert [scored.reward for scored in published.samples] == rewards


def test_a_deadline_counts_from_the_event_and_a_restart_does_not_start_it_again():
    world = World({"required": ["human"], "deadline_s": 1000}, group_deadline_s=1)
    event = received(make_experience(0, 0, size=1), 0)
    world.write("experiences", Received(0, 0, event.key, event.value, (), timestamp_ms=5_000))
    world.feed("experiences", 300_000)
    world.perform(list(world.pipeline.room.flush()), 300_000)
    world.kill()
    world.finish(1_004_000)
    assert world.published == []
    world.perform(world.pipeline.tick(1_006_001), 1_006_001)
    assert [m.cause for m in world.published[0].samples] == ["reward_missing"]


def test_after_a_long_stop_no_deadline_counts_until_the_log_has_been_read():
    world = World({"required": ["human"], "deadline_s": 10}, group_deadline_s=1, rewards=[])
    world.write("experiences", received(make_experience(0, 0, size=1), 0))
    world.feed("experiences", 1)
    world.perform(list(world.pipeline.room.flush()), 1)
    world.kill()
    world.perform(world.pipeline.tick(DAY_MS), DAY_MS)
    assert world.published == []
    one = reward(0, 0, 7.0)
    world.write("rewards", Received(0, 0, one.group_id.encode(), encode(one)))
    world.finish(DAY_MS)
    assert [m.reward for m in world.published[0].samples] == [7.0]


def test_a_revision_for_a_released_group_is_counted_and_changes_nothing():
    world = World({"required": ["human"]}, rewards=[])
    world.write("experiences", received(make_experience(0, 0, size=1), 0))
    for offset, one in enumerate([reward(0, 0, 1.0), reward(0, 0, 9.0, revision=1)]):
        world.write("rewards", Received(0, offset, one.group_id.encode(), encode(one)))
    world.finish(0)
    assert [m.reward for m in world.published[0].samples] == [1.0]
    assert world.pipeline.counts["reward:after_release"] == 1
    world.kill()
    world.write("rewards", Received(0, 2, b"train-00000000", encode(reward(0, 0, 9.0, revision=2))))
    world.finish(0)
    assert world.pipeline.counts["reward:after_release"] == 1
    assert len(world.published) == 1


def test_samples_that_need_no_reward_are_not_waited_for():
    world = World({"required": ["human"]}, rewards=[])
    for offset, one in enumerate(
        [failed_experience(0, 0, size=2), make_experience(0, 1, size=2, kind="demonstration")]
    ):
        world.write("experiences", received(one, offset))
    world.write("experiences", received(make_experience(0, 0, size=1, split="eval"), 2))
    for _ in range(2):
        world.feed("experiences", 0)
    assert [m.cause for m in world.published[0].samples] == ["rollout_failed", None]
    [evaluated] = world.pipeline.receive(world.logs["experiences"][2], 0)
    assert isinstance(evaluated, Publish)


def test_a_copy_is_recognized_although_its_group_is_committed_and_the_worker_killed():
    """A repeated rollout comes late: its released group is known for as long as samples are waited for."""
    world = World({"required": ["human"]}, rewards=[], group_deadline_s=60)
    group = [received(make_experience(0, sample, size=2), sample) for sample in range(2)]
    for event in group:
        world.write("experiences", event)
    for sample in range(2):
        one = reward(0, sample, 1.0)
        world.write("rewards", Received(0, sample, one.group_id.encode(), encode(one)))
    world.finish(0)
    world.commit(0)
    world.kill()
    world.commit(0)
    world.write("experiences", received(make_experience(0, 1, size=2), 2))
    world.finish(50_000)
    assert (len(world.published), len(world.pipeline.room), world.resolved["duplicate"]) == (1, 0, 1)
    world.commit(59_000)
    assert len(world.changelog) == 1
    world.commit(61_000)
    assert world.changelog == {}


def test_a_group_whose_experiences_were_all_deleted_is_published_filtered_so_that_its_task_retires():
    pipeline = make({"required": ["human"]}, rewards=[])
    pipeline.receive(received(make_experience(0, 0, size=1), 0), 0)
    [release] = pipeline.receive_reward(Received(0, 0, b"train-00000000", encode(reward(0, 0, 1.0))), 0)
    [sample] = pipeline.room.publish(release, {}, 0).samples
    assert (sample.verdict, sample.cause, sample.release_size) == ("filtered", "deleted", 1)
    assert (sample.experience.number, sample.experience.experience_id) == (0, "train-00000000/0")
    assert pipeline.counts["filtered:deleted"] == 1


def test_rewards_whose_experience_never_comes_are_bounded_by_number_and_time():
    world = World({"required": ["human"], "max_early": 10, "deadline_s": 100})
    for n in range(30):
        one = reward(n, 0, 1.0)
        world.write("rewards", Received(0, n, one.group_id.encode(), encode(one)))
    world.finish(0)
    assert len(world.pipeline.room) == 10
    assert sorted(world.changelog) == [f"train-{n:08d}" for n in range(20, 30)]
    world.perform(world.pipeline.tick(200_000), 200_000)
    assert len(world.pipeline.room) == 0
    assert world.changelog == {}
    assert world.pipeline.counts["reward:unclaimed"] == 30


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        (Received(0, 0, b"k", b"\xc3\x01garbage"), "decode"),
        (Received(0, 0, b"train-00000000", encode(make_experience())), "decode"),
        (Received(0, 0, b"other", encode(reward(0, 0, 1.0))), "validate"),
        (Received(0, 0, b"g", encode(Reward("h/0", "g", "human", 1.0, 1))), "validate"),
        (Received(0, 0, b"g", encode(Reward("g/" + "0" * 999, "g", "human", 1.0, 1))), "validate"),
        (Received(0, 0, b"train-00000000", encode(reward(0, 0, 1e308))), "validate"),
    ],
)
def test_a_malformed_reward_is_a_dead_letter_of_its_own_topic(event, stage):
    [letter] = make({"required": ["human"]}).receive_reward(event, 0)
    assert isinstance(letter, DeadLetter)
    assert (letter.stage, letter.source, letter.final) == (stage, "rewards", True)


def test_a_group_too_large_for_one_changelog_event_is_refused():
    [letter] = make({"required": ["human"]}).receive(received(make_experience(0, 0, size=65), 0), 0)
    assert (letter.stage, letter.error.field) == ("validate", "group_size")


def test_rewards_too_large_to_add_up_filter_their_sample_and_nothing_breaks():
    published = joined({"required": ["human"]}, [reward(0, 0, 1e9), reward(0, 1, 1.0)], rewards=[])
    assert [m.cause for m in published.samples] == [None, None]
    huge = [reward(0, 0, 1e9), reward(0, 1, 1.0), reward(0, 0, 1e9, "tests")]
    published = joined({"required": ["human"], "optional": ["tests"]}, [huge[2], *huge[:2]], rewards=[])
    assert [m.cause for m in published.samples] == ["reward_not_finite", None]


@given(st.lists(st.integers(0, 10_000), max_size=50), st.lists(st.integers(0, 25_000), min_size=1, max_size=20))
def test_no_key_is_popped_early_nor_more_than_a_thousandth_late(times, checks):
    queue, out = DeadlineQueue(5_000), {}
    for n, due in enumerate(times):
        queue.add(str(n).encode(), due)
    for now in sorted(checks):
        while (key := queue.pop(now)) is not None:
            out[int(key)] = now
    for n, due in enumerate(times):
        later = [now for now in sorted(checks) if now >= due]
        on_time = [now for now in sorted(checks) if now >= due + 10]
        assert (n in out) >= bool(on_time)
        if n in out:
            assert out[n] in later
            assert not on_time or out[n] <= on_time[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"required": ["a", "a"]},
        {"required": ["a"], "optional": ["a"]},
        {"optional": ["a"]},
        {"required": ["a"], "weights": {"b": 1}},
        {"required": ["a"], "weights": {"a": 1}, "combine": "product"},
        {"required": ["functions"]},
    ],
)
def test_a_contradictory_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match=r"source|weights|twice|optional"):
        ExternalRewardsConfig.model_validate(wrong)
