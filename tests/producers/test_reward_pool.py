"""The parts of a rewarder: which experiences it rewards together, its tries, its cache, its rate."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rewarder.cache import JudgementCache
from producers.rewarder.intake import GroupIntake, Received, SampleIntake, Unit, is_counted
from producers.rewarder.known_rewards import KnownRewards
from producers.rewarder.pool import Outcomes, RewardPool
from producers.rewarder.rate_limit import RateLimit
from rft.config import Config, RewarderConfig
from rft.errors import ConfigError, RewardError, RftError
from rft.log.events import Event
from rft.rewards.judges import open_judge
from schemas.events import Experience, Reward
from tests.producers.rewarded import experience
from tests.rft.rewards.judge_endpoint import endpoint


def received(offset: int, one: Experience) -> Received:
    return Received(Event("experiences", 0, offset, 0, b"", b"", ()), one)


# -- the intake


@given(st.integers(0, 10**9))
def test_each_experience_is_finished_with_one_unit(seed: int) -> None:
    """Whatever the order, repetitions, failures and spares: every event is in one unit, and no sample twice in it."""
    choose = random.Random(seed)
    size, spare = choose.randint(1, 4), choose.randint(0, 1)
    samples = [(number, sample) for number in range(3) for sample in range(size)]
    events = []
    for number, sample in choose.choices(samples, k=12):
        state = {"finish_reason": "error"} if choose.random() < 0.2 else {}
        events.append(experience(number, sample, size=size, spare=min(spare, size - 1), **state))
    intake = GroupIntake(deadline_s=10)
    units: list[Unit] = []
    for offset, one in enumerate(events):
        units += intake.add(received(offset, one), now=float(offset))
    units += intake.due(1e9)
    assert intake.waiting == 0
    assert sorted(position.offset for unit in units for position in unit.positions) == list(range(len(events)))
    for unit in units:
        names = [one.experience.sample for one in unit.samples]
        assert names == sorted(set(names))
        assert all(one.experience.finish_reason != "error" for one in unit.samples)


def test_a_group_is_given_out_when_it_is_complete_or_due() -> None:
    intake = GroupIntake(deadline_s=10)
    assert intake.add(received(0, experience(0, 1, size=2)), 0.0) == []
    assert intake.due(9.9) == []
    (unit,) = intake.add(received(1, experience(0, 0, size=2)), 5.0)
    assert [one.experience.sample for one in unit.samples] == [0, 1]
    assert intake.add(received(2, experience(1, 0, size=2)), 6.0) == []
    assert [one.samples[0].position.offset for one in intake.due(16.0)] == [2]


def test_what_waits_for_no_reward_is_not_counted() -> None:
    assert is_counted(experience(0, 0))
    assert not is_counted(experience(0, 0, split="eval"))
    assert not is_counted(experience(0, 0, kind="preference"))
    assert not is_counted(experience(0, 0, rows=2, row=0))
    (failed,) = SampleIntake().add(received(3, experience(0, 0, finish_reason="error")), 0.0)
    assert (failed.samples, [one.offset for one in failed.positions]) == ((), [3])


# -- the pool


@dataclass
class Owner:
    """Takes what a pool hands out."""

    rewards: list[Reward] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    abandoned: int = 0
    owns: bool = True
    done: int = 0

    def publish(self, unit: Unit, rewards: Any) -> None:
        self.rewards += rewards
        self.done += 1

    async def reject(self, one: Received, error: RewardError) -> None:
        self.dead.append(str(error))

    def abandon(self, unit: Unit) -> None:
        self.abandoned += 1
        self.done += 1


def reward_all(
    units: list[Unit], *, cache: Path | None = None, required: bool = True, owner: Owner | None = None, **settings: Any
) -> tuple[Owner, RewardPool]:
    """Run a pool until all units are done, and return what it handed out. Raises what ended it."""
    config = RewarderConfig(**{"backoff_s": 0.01, **settings})
    owner = owner or Owner()

    async def run() -> RewardPool:
        judge = open_judge("grader", config)
        kept = JudgementCache(cache, config) if cache else None
        outcomes = Outcomes(lambda partition: owner.owns, owner.publish, owner.reject, owner.abandon)
        pool = RewardPool("grader", config, judge, kept, KnownRewards("grader", 0), outcomes, required=required)
        before = owner.done
        pool.add(units)
        for _ in range(6000):
            if owner.done >= before + len(units) or pool.error is not None:
                break
            await asyncio.sleep(0.01)
        await pool.abandon()
        await judge.close()
        if kept:
            kept.close()
        if pool.error:
            raise pool.error
        return pool

    return owner, asyncio.run(run())


def unit(number: int, **changes: Any) -> Unit:
    return Unit((received(number, experience(number, 0, **changes)),))


def test_faults_of_a_judge_are_tried_again_until_it_answers() -> None:
    """Slow, busy, failing, broken off, garbage: one reward in the end."""
    good = '{"score": 5}'
    with endpoint("slow", 429, 500, "broken", 503, "garbage", "no idea", good, slow_s=1.5) as server:
        options = {"base_url": server.url, "model": "m", "timeout_s": 0.5}
        owner, pool = reward_all([unit(1)], function="judge", options=options, retries=2)
    assert [one.value for one in owner.rewards] == [0.5]
    assert (owner.dead, pool.counts.retries, len(server.bodies)) == ([], 7, 8)


def test_a_sample_that_cannot_be_judged_is_a_dead_letter_and_the_others_go_on() -> None:
    units = [unit(1, response="fail"), unit(2), unit(3)]
    owner, pool = reward_all(units, function="tests.producers.slow_rewards:length", retries=2)
    assert sorted(one.experience_id for one in owner.rewards) == ["train-00000002/0", "train-00000003/0"]
    assert len(owner.dead) == 1
    assert "ValueError: this one cannot be judged" in owner.dead[0]
    assert (pool.counts.failed, pool.counts.retries) == (1, 2)


def test_a_call_past_its_deadline_fails_its_sample() -> None:
    owner, _ = reward_all([unit(1)], function="tests.producers.slow_rewards:hang", deadline_s=0.2, retries=1)
    plain = "reward function tests.producers.slow_rewards:hang did not end within 0.2 s (rewarders.grader.deadline_s)"
    assert owner.dead == [plain]
    owner, _ = reward_all([unit(1)], function="tests.producers.slow_rewards:hang_later", deadline_s=0.2, retries=0)
    assert owner.dead == ["tests.producers.slow_rewards:hang_later took longer than rewarders.grader.deadline_s = 0.2"]


def test_an_outage_ends_the_role_and_a_wrong_key_does_at_once() -> None:
    with endpoint(503) as server:
        options = {"base_url": server.url, "model": "m"}
        with pytest.raises(RftError, match="has judged nothing for"):
            reward_all([unit(1), unit(2)], function="judge", options=options, outage_s=0.3)
    with endpoint(401) as server, pytest.raises(ConfigError, match="requires an API key"):
        reward_all([unit(1)], function="judge", options={"base_url": server.url, "model": "m"})


def test_one_sample_that_the_service_cannot_take_ends_nobody() -> None:
    """The service fails for it alone, and judges the others meanwhile."""

    def judge(body: dict[str, Any]) -> str:
        if "poison" in body["messages"][1]["content"]:
            raise ConnectionError  # the connection is broken off
        return '{"score": 10}'

    with endpoint(judge) as server:
        options = {"base_url": server.url, "model": "m"}
        units = [unit(1, response="poison"), *(unit(number) for number in range(2, 6))]
        owner, _ = reward_all(
            units, function="judge", options=options, outage_s=1.0, backoff_s=0.2, rate=5.0, concurrency=2
        )
    assert len(owner.rewards) == 4
    assert "while other samples were judged" in owner.dead[0]


def test_the_cache_answers_the_same_question_only(tmp_path: Path) -> None:
    with endpoint('{"score": 1}', '{"score": 2}') as server:
        settings: dict[str, Any] = {
            "function": "judge", "options": {"base_url": server.url, "model": "m"}, "cache": tmp_path,
        }  # fmt: skip
        first, _ = reward_all([unit(1)], **settings)
        again, pool = reward_all([unit(1)], **settings)
        assert len(server.bodies) == 1
        assert pool.counts.cached == 1
        assert [one.value for one in first.rewards] == [one.value for one in again.rewards] == [0.1]
        other, _ = reward_all([unit(1, response="else")], **settings)
        settings["options"] = settings["options"] | {"rubric": "another"}
        reward_all([unit(1)], **settings)
        assert len(server.bodies) == 3
        assert other.rewards[0].value == 0.2
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_folder"):
        reward_all([unit(1)], function="judge", options=settings["options"], cache=tmp_path / "file")


def test_a_partition_that_moved_is_left_to_its_owner() -> None:
    owner, _ = reward_all([unit(1)], function="tests.producers.slow_rewards:length", owner=Owner(owns=False))
    assert (owner.abandoned, owner.rewards) == (1, [])


def test_none_is_a_failure_only_where_groups_wait() -> None:
    rank = "tests.producers.slow_rewards:nothing"
    owner, pool = reward_all([unit(1)], function=rank, required=False)
    assert (owner.rewards, owner.dead, pool.counts.abstained) == ([], [], 1)
    owner, _ = reward_all([unit(1)], function=rank, on_failure="default", default_value=-2.0)
    assert [one.value for one in owner.rewards] == [-2.0]
    assert "gave no reward (None)" in owner.dead[0]


def test_starts_are_spaced() -> None:
    now, waits = [0.0], []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> None:
        limit = RateLimit(4.0, clock=lambda: now[0], sleep=sleep)
        for _ in range(3):
            await limit.wait()
        limit.pause(10.0)
        await limit.wait()

    asyncio.run(run())
    assert waits == [0.25, 0.5, 10.0]


def test_the_configuration_says_what_does_not_fit() -> None:
    function = {"function": "tests.producers.slow_rewards:length"}
    for sections, text in (
        ({"rewarders": {"a": function}}, "add 'a' to processor.external.required"),
        (
            {
                "rewarders": {"a": {**function, "deadline_s": 60}},
                "processor": {"external": {"required": ["a"], "deadline_s": 30}},
            },
            "longer than groups wait",
        ),
        (
            {
                "rewarders": {"a": {"function": "code_tests", "scope": "group"}},
                "processor": {"external": {"required": ["a"]}},
            },
            "set scope = 'sample'",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            Config.model_validate(sections)
    both = Config.model_validate(
        {"rewarders": {"a": function, "b": function}, "processor": {"external": {"required": ["a", "b"]}}}
    )
    assert list(both.of_rewarder("b").rewarders) == ["b"]
    for name, text in ((None, "choose one by --name .a, b."), ("c", "no rewarder 'c'")):
        with pytest.raises(ConfigError, match=text):
            both.of_rewarder(name)
    for wrong, text in (("judg", "did you mean 'judge'"), ("no.such:thing", "importing"), ("code_test", "code_tests")):
        with pytest.raises(ConfigError, match=text):
            open_judge("a", RewarderConfig(function=wrong))
