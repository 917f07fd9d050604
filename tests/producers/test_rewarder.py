"""``rft rewarder`` as a process: each sample gets its reward once, whatever happens to the process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from brokers import ConfigMaker

from producers.rewards import RewardProducer
from rft.config import Config
from rft.log.header_names import read_any_header_names
from rft.log.topics import ensure_topics
from tests.producers.rewarded import all_rewards, by_id, experience, publish
from tests.producers.roles import Log, RoleProcess

LENGTH = "slow_rewards:length"


@pytest.fixture
def rewarder_config(make_config: ConfigMaker, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def make(servers: str, **rewarder: Any) -> Config:
        config = make_config(
            servers,
            run={"folder": str(tmp_path_factory.mktemp("run")), "name": "test"},
            log={"partitions": 2},
            processor={"external": {"required": ["grader"]}, "group_deadline_s": 5},
            rewarders={"grader": {"retries": 1, "backoff_s": 0.1, **rewarder}},
        )
        ensure_topics(config)
        return config

    return make


def test_a_killed_rewarder_gives_each_reward_once(any_broker: str, rewarder_config: Any) -> None:
    """``kill -9`` in the middle: on the log is one reward of each sample by id, source and revision."""
    config = rewarder_config(any_broker, function=LENGTH, options={"pause_s": 0.03}, concurrency=4)
    experiences = [experience(number, sample) for number in range(40) for sample in range(4)]
    publish(config, experiences)
    expected = {one.experience_id: float(len(one.response)) for one in experiences}
    with Log(config, "rewards") as log:
        with RoleProcess("rewarder", config) as victim:
            log.wait("rewards", lambda found: len(found) >= 40)
            victim.kill()
        assert len(log.read("rewards")) < len(expected), "the kill came too late to show anything"
        with RoleProcess("rewarder", config, name="last") as last:
            all_rewards(log, set(expected))
            assert last.terminate()[0] == 0
        rewards = log.read("rewards", wait_s=1.0)
    assert by_id(rewards) == dict.fromkeys(((name, "grader", 0) for name in expected), 1)
    assert {one.experience_id: one.value for one in rewards} == expected


def test_what_needs_no_reward_gets_none(embedded_broker: str, rewarder_config: Any) -> None:
    """Evaluations, demonstrations, failed rollouts, earlier rows and repetitions are passed over."""
    config = rewarder_config(embedded_broker, function="slow_rewards:length_later", revision=3)
    wanted = [experience(1, 0), experience(1, 1, rows=2, row=1, experience_id="train-00000001/1/1")]
    others = [
        experience(2, 0, split="eval"),
        experience(2, 1, kind="demonstration"),
        experience(2, 2, finish_reason="error", error="broken"),
        experience(1, 1, rows=2, row=0, experience_id="train-00000001/1/0"),
        experience(1, 0, response="again"),
    ]
    with RewardProducer(config) as others_rewards:
        others_rewards.send("train-00000001/0", 9.0, source="human", revision=3)
    publish(config, [*wanted, *others, experience(3, 0)])
    with Log(config, "rewards") as log, RoleProcess("rewarder", config) as role:
        all_rewards(log, {"train-00000001/0", "train-00000001/1", "train-00000003/0"})
        assert role.terminate()[0] == 0
        rewards = [one for one in log.read("rewards", wait_s=1.0) if one.source == "grader"]
    assert {(one.experience_id, one.value, one.revision) for one in rewards} == {
        ("train-00000001/0", 1.0, 3),
        ("train-00000001/1", 2.0, 3),
        ("train-00000003/0", 3.0, 3),
    }
    assert len(rewards) == 3
    assert json.loads(rewards[0].metadata) == {"values": {"letters": rewards[0].value}}


def test_groups_are_rewarded_as_a_whole_and_failures_are_dead_letters(
    embedded_broker: str, rewarder_config: Any
) -> None:
    """A complete group is ranked at once, an incomplete one at its deadline; what cannot be judged is in dlq."""
    config = rewarder_config(embedded_broker, function="slow_rewards:rank", scope="group")
    failed = experience(5, 3, finish_reason="error", error="broken", response="")
    publish(config, [*(experience(4, sample) for sample in range(4)), *(experience(5, s) for s in range(3)), failed])
    publish(config, [experience(6, 0), experience(6, 1)])
    with Log(config, "rewards") as log, RoleProcess("rewarder", config):
        rewards = all_rewards(log, {"train-00000006/1"})
    assert {one.experience_id[-3:]: one.value for one in rewards} == {
        **{f"4/{sample}": float(sample) for sample in range(4)},
        **{f"5/{sample}": float(sample) for sample in range(3)},
        "6/0": 0.0,
        "6/1": 1.0,
    }

    config = rewarder_config(embedded_broker, function=LENGTH, on_failure="default", default_value=-1.0)
    publish(config, [experience(7, 0, response="fail"), experience(7, 1)])
    read_any_header_names()
    with Log(config, "rewards") as log, Log(config, "dlq") as letters, RoleProcess("rewarder", config):
        rewards = all_rewards(log, {"train-00000007/0", "train-00000007/1"})
        (letter,) = letters.raw("dlq")
    assert {one.experience_id[-3:]: one.value for one in rewards} == {"7/0": -1.0, "7/1": 8.0}
    headers = dict(letter.headers)
    assert headers["rft.error.stage"] == b"reward"
    assert b"this one cannot be judged" in (headers["rft.error.message"] or b"")
