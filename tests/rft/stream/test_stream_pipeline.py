"""The pipeline decides as documented about single experiences and groups."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stream_experiences import MAX_BYTES, failed_experience, make_experience, received

from rft.stream.actions import DeadLetter, Publish, Received, Resolve
from rft.stream.release import release_id
from schemas.codec import encode


def feed(pipeline, experiences, *, start=0, now_ms=0):
    return [
        action
        for offset, experience in enumerate(experiences, start)
        for action in pipeline.receive(received(experience, offset), now_ms)
    ]


def test_a_group_is_released_when_its_last_sample_comes(make_pipeline):
    pipeline = make_pipeline()
    experiences = [make_experience(7, sample) for sample in range(4)]
    assert feed(pipeline, experiences[:3]) == []
    [action] = feed(pipeline, experiences[3:], start=3)
    assert isinstance(action, Publish)
    assert action.resolves == (0, 1, 2, 3)
    assert [scored.experience for scored in action.samples] == experiences
    assert [scored.verdict for scored in action.samples] == ["train"] * 4
    assert [scored.reward for scored in action.samples] == [0.0, 1.0, 0.0, 1.0]
    assert action.samples[0].rewards == {"exact_match": 0.0}


def test_the_order_of_samples_does_not_change_the_release_id():
    assert release_id(["a/0", "a/1"]) == release_id(["a/1", "a/0"]) != release_id(["a/0"])


def test_a_repetition_in_an_open_group_is_resolved_at_once(make_pipeline):
    pipeline = make_pipeline()
    feed(pipeline, [make_experience(0, 1)])
    assert feed(pipeline, [make_experience(0, 1)], start=9) == [Resolve(0, 9, "duplicate")]


def test_after_a_release_samples_that_come_again_are_duplicates_and_new_ones_are_late(make_pipeline):
    pipeline = make_pipeline(group_deadline_s=1)
    feed(pipeline, [make_experience(0, sample) for sample in range(3)])
    [release] = pipeline.tick(1000)
    assert isinstance(release, Publish)
    assert release.samples[0].release_size == 3
    assert feed(pipeline, [make_experience(0, 2)], start=3) == [Resolve(0, 3, "duplicate")]
    assert feed(pipeline, [make_experience(0, 3)], start=4) == [Resolve(0, 4, "late")]


def test_a_deadline_counts_from_the_first_sample_and_not_a_moment_less(make_pipeline):
    pipeline = make_pipeline(group_deadline_s=2)
    feed(pipeline, [make_experience(0, 0)], now_ms=500)
    feed(pipeline, [make_experience(0, 1)], start=1, now_ms=2400)
    assert pipeline.tick(2499) == []
    [release] = pipeline.tick(2500)
    assert isinstance(release, Publish)
    assert release.resolves == (0, 1)


@pytest.mark.parametrize(
    ("fields", "settings", "cause"),
    [
        ({}, {"max_response_tokens": 2}, "too_long"),
        ({"finish_reason": "length"}, {"drop_truncated": True}, "truncated"),
        (
            {
                "action_mask": np.zeros(7, np.uint8),
                "logprobs": np.zeros(7, np.float32),
                "versions": np.full(7, -1, np.int32),
            },
            {},
            "empty",
        ),
    ],
)
def test_cleaning_filters_with_a_cause_and_still_publishes(make_pipeline, fields, settings, cause):
    pipeline = make_pipeline(min_group_size=1, **settings)
    good = make_experience(0, 0, size=2, response="tac")
    if cause == "too_long":
        mask = np.array([0] * 6 + [1], np.uint8)
        good = dataclasses.replace(
            good,
            action_mask=mask,
            logprobs=np.zeros(7, np.float32),
            versions=np.where(mask == 1, 0, -1).astype(np.int32),
        )
    [action] = feed(pipeline, [good, make_experience(0, 1, size=2, **fields)])
    assert [(scored.verdict, scored.cause) for scored in action.samples] == [("train", None), ("filtered", cause)]
    assert action.samples[1].reward == 0
    assert pipeline.counts[f"filtered:{cause}"] == 1


def test_a_failed_rollout_is_a_filtered_sample(make_pipeline):
    pipeline = make_pipeline()
    [action] = feed(pipeline, [*(make_experience(0, sample) for sample in range(3)), failed_experience(0, 3)])
    assert [scored.cause for scored in action.samples] == [None, None, None, "rollout_failed"]


def test_a_group_with_too_few_usable_samples_is_filtered_as_a_whole(make_pipeline):
    pipeline = make_pipeline(min_group_size=2)
    [action] = feed(pipeline, [make_experience(0, 0), *(failed_experience(0, sample) for sample in (1, 2, 3))])
    assert [scored.cause for scored in action.samples] == ["group_too_small"] + ["rollout_failed"] * 3
    assert {scored.verdict for scored in action.samples} == {"filtered"}


def test_a_held_out_answer_in_which_the_policy_wrote_nothing_is_an_answer(make_pipeline):
    """An evaluation waits for all of its answers."""
    nothing = {
        "action_mask": np.zeros(7, np.uint8),
        "logprobs": np.zeros(7, np.float32),
        "versions": np.full(7, -1, np.int32),
    }
    [action] = feed(make_pipeline(), [make_experience(0, 0, size=1, split="eval", response="", **nothing)])
    assert isinstance(action, Publish)
    assert [(scored.verdict, scored.cause, scored.reward) for scored in action.samples] == [("train", None, 0.0)]


def test_an_evaluation_counts_every_answer_that_came(make_pipeline):
    pipeline = make_pipeline(min_group_size=2, max_response_tokens=1, drop_truncated=True, drop_uniform_groups=True)
    [answered] = feed(pipeline, [make_experience(0, 0, size=1, split="eval", finish_reason="length", response="tac")])
    assert (answered.samples[0].verdict, answered.samples[0].reward) == ("train", 1.0)
    [failed] = feed(pipeline, [failed_experience(1, 0, size=1, split="eval")], start=1)
    assert failed.samples[0].cause == "rollout_failed"


def test_uniform_groups_are_dropped_only_when_asked(make_pipeline):
    alike = [make_experience(0, sample, response="tac") for sample in range(4)]
    [kept] = feed(make_pipeline(), alike)
    [dropped] = feed(make_pipeline(drop_uniform_groups=True), alike)
    assert {scored.cause for scored in kept.samples} == {None}
    assert {scored.cause for scored in dropped.samples} == {"uniform"}


def test_a_raising_reward_function_makes_a_dead_letter_and_the_group_goes_on_without_the_sample(make_pipeline):
    pipeline = make_pipeline()
    experiences = [make_experience(0, sample) for sample in range(3)] + [make_experience(0, 3, response="raise")]
    letter, release = feed(pipeline, experiences)
    assert isinstance(letter, DeadLetter)
    assert (letter.stage, letter.offset, letter.final) == ("score", 3, False)
    assert "ZeroDivisionError" in str(letter.error)
    assert [scored.cause for scored in release.samples] == [None, None, None, "score_failed"]
    assert release.resolves == (0, 1, 2, 3)


def test_a_reward_that_comes_with_the_experience_is_taken_as_it_is(make_pipeline):
    [action] = feed(make_pipeline(min_group_size=1), [make_experience(0, 0, size=1, response="raise", reward=0.25)])
    assert (action.samples[0].reward, action.samples[0].rewards) == (0.25, {"given": 0.25})


def test_priority_is_the_variance_of_usable_rewards(make_pipeline):
    pipeline = make_pipeline(priority="reward_variance")
    [action] = feed(pipeline, [make_experience(0, sample) for sample in range(3)] + [failed_experience(0, 3)])
    assert [scored.priority for scored in action.samples] == pytest.approx([np.var([0.0, 1.0, 0.0])] * 4)


WRONG = {
    "random bytes": b"\x93\x17garbage",
    "no value": None,
    "nothing": b"",
    "truncated": encode(make_experience())[:-5],
    "trailing bytes": encode(make_experience()) + b"\x00",
    "too large": b"\xc3\x01" + bytes(MAX_BYTES),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_an_event_that_cannot_be_decoded_is_a_dead_letter(make_pipeline, value):
    [letter] = make_pipeline().receive(Received(2, 40, b"train-00000000", value), 0)
    assert isinstance(letter, DeadLetter)
    assert (letter.partition, letter.offset, letter.stage, letter.final) == (2, 40, "decode", True)
    assert str(letter.error)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"group_id": "", "experience_id": "/0"}, "group_id"),
        ({"experience_id": "other/0"}, "experience_id"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": 2**30}, "group_size"),
        ({"kind": "wish"}, "kind"),
        ({"split": "test"}, "split"),
        ({"finish_reason": "tired"}, "finish_reason"),
        ({"metadata": "["}, "metadata"),
        ({"metadata": "[" * 20_000}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"logprobs": np.full(7, 0.5, np.float32)}, "logprobs"),
        ({"versions": np.full(7, 3, np.int32)}, "versions"),
        ({"versions": np.full(7, -1, np.int32)}, "versions"),
        ({"spare": -1}, "spare"),
        ({"spare": 4}, "spare"),
        ({"rows": 0}, "rows"),
        ({"rows": 1025}, "rows"),
        ({"row": 1}, "row"),
        ({"rows": 2, "row": 2}, "row"),
        ({"rows": 2, "row": -1}, "row"),
        ({"rows": 2}, "experience_id"),
        ({"rows": 2, "row": 1, "experience_id": "train-00000000/0/0"}, "experience_id"),
        ({"rows": 2, "experience_id": "train-00000000/0/0", "kind": "demonstration"}, "rows"),
        ({"rows": 2, "experience_id": "train-00000000/0/0", "source": "s" * 257}, "source"),
        ({"turn_rewards": np.zeros(2, np.float32)}, "turn_rewards"),
        ({"turn_rewards": np.full(1, 2e9, np.float32)}, "turn_rewards"),
        ({"rewards": {"": 1.0}}, "rewards"),
        ({"rewards": {str(n): 1.0 for n in range(257)}}, "rewards"),
        ({"rewards": {"style": 2e9}}, "rewards['style']"),
    ],
)
def test_an_experience_that_contradicts_itself_is_a_dead_letter_that_names_the_field(make_pipeline, fields, field):
    pipeline = make_pipeline()
    [letter] = pipeline.receive(received(make_experience(0, 0, **fields), 5), 0)
    assert isinstance(letter, DeadLetter)
    assert (letter.stage, letter.error.field) == ("validate", field)
    assert len(pipeline.groups) == 0


@pytest.mark.parametrize("key", [None, b"", b"train-00000001", b"\xff"])
def test_a_key_other_than_the_group_is_a_dead_letter(make_pipeline, key):
    [letter] = make_pipeline().receive(Received(0, 0, key, encode(make_experience(0, 0))), 0)
    assert (letter.stage, letter.error.field) == ("validate", "key")


def test_memory_is_bounded_by_releasing_the_oldest_group_early(make_pipeline):
    size = len(encode(make_experience(0, 0)))
    pipeline = make_pipeline(buffer_mb=2.5 * size / 1024**2)
    assert feed(pipeline, [make_experience(0, 0), make_experience(1, 0)]) == []
    [early] = feed(pipeline, [make_experience(2, 0)], start=2)
    assert (early.group_id, early.resolves) == ("train-00000000", (0,))
    assert len(pipeline.groups) == 2
    assert pipeline.groups.size_bytes <= 2.5 * size


def test_groups_of_other_partitions_stay_when_one_is_taken_away(make_pipeline):
    pipeline = make_pipeline()
    for partition in (0, 1):
        pipeline.receive(received(make_experience(partition, 0), 0, partition), 0)
    pipeline.forget([0])
    assert [group.partition for group in pipeline.groups] == [1]


def test_a_demonstration_in_a_group_of_rollouts_is_released_with_them_and_keeps_its_reward(make_pipeline):
    """So that an algorithm like `luffy` can compare them."""
    rollouts = [make_experience(7, sample) for sample in range(3)]
    [action] = feed(make_pipeline(), [*rollouts, make_experience(7, 3, kind="demonstration", reward=1.0)])
    assert isinstance(action, Publish)
    assert [scored.experience.kind for scored in action.samples] == ["rollout"] * 3 + ["demonstration"]
    assert [scored.verdict for scored in action.samples] == ["train"] * 4
    assert [scored.reward for scored in action.samples] == [0.0, 1.0, 0.0, 1.0]
