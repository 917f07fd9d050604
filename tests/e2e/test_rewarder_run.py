"""A run whose only reward comes from a rewarder, which is killed in the middle."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline import Pipeline, settings

from consumers.audit import audit
from rft.config import Config
from rft.log.opening import open_log
from rft.log.reader import EventReader
from schemas.events import Reward

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

STEPS = 12


def rewards_on(config: Config) -> list[Reward]:
    with EventReader(config, "test", ["rewards"]) as reader:
        ends, found = reader.end_offsets(), []
        while not reader.caught_up(ends):
            found += [event.record(Reward) for event in reader.poll(0.5)]
    return found


def test_a_run_learns_from_a_rewarder_that_is_killed(
    pipeline: Callable[..., Pipeline], tmp_path: Path, tiny_model: Path, embedded_broker: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each step is taken with the rewarder's values, and each reward is on the log once."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    share_of_a = "counting_rewards:share_of_a"
    run = pipeline(
        settings(
            tmp_path, tiny_model, embedded_broker,
            rollout={"samples": 8, "max_tokens": 8, "deadline_s": 60},
            processor={
                # The function only scores the held-out tasks, for which no group waits.
                "rewards": [{"function": share_of_a}],
                "external": {"required": ["grader"], "weights": {"functions": 0.0}, "deadline_s": 150},
            },
            rewarders={"grader": {"function": share_of_a, "concurrency": 4}},
            trainer={"steps": STEPS, "groups_per_step": 4, "learning_rate": 3e-3},
            eval={"tasks": 20},
        )
    )  # fmt: skip
    run.wait_until(lambda: len(rewards_on(run.config)) >= 60, 150, "60 rewards")
    run.kill("rewarder")
    assert run.wait(200) == 0, run.tail()

    rewards = rewards_on(run.config)
    assert set(Counter((one.experience_id, one.source, one.revision) for one in rewards).values()) == {1}
    values = {one.experience_id: one.value for one in rewards}
    trained = 0
    with open_log(run.config) as view:
        audited = audit(run.config, view)
        for scored in (event.record() for event in view.read("ready")):
            if scored.verdict == "train" and scored.experience.split == "train":
                assert scored.reward == values[scored.experience.experience_id]
                trained += 1
    assert audited.ok, audited.problems
    assert trained >= STEPS * 4 * 2
    assert run.report["steps"] == STEPS
