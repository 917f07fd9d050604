"""The workflow ``environment`` with real environments: turns are actions, rewards are those of the environment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_models import chat_tokenizer, make_chat_model

from rft.config import Config, PolicyConfig, RolloutConfig
from rft.errors import ConfigError, RolloutError
from rft.policy.base import Generation, Policy, Sampling
from rft.policy.chat_template import ChatTemplate
from rft.policy.transformers.policy import TransformersPolicy
from rft.tasks.splits import open_sources
from rft.workflows.base import check_workflow, close_workflow, open_workflow
from rft.workflows.rollout import Rollout
from rft.workflows.running import run_workflow
from schemas.events import Task

HERE = Path(__file__).parent
TASK = Task("train-00000000", 0, "train", "test", "the task", None, 1, 512, 1.0, 1.0, 5, 0, 0)
SAMPLING = Sampling(512)
COUNTING = {"environment": "faulty_environments:Counting", "environment_options": {"turns": 3}}


class Scripted:
    """Writes given texts, in real tokens."""

    version, error, stats, receivers, context = 3, None, {}, 0, 100_000

    def __init__(self, texts: Sequence[str]) -> None:
        self.tokenizer = chat_tokenizer("qwen3")
        self.chat = ChatTemplate(self.tokenizer)
        self.texts = iter(texts)
        self.read: list[str] = []

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        self.read.append(self.chat.decode(list(prompt), special=True))
        written = [*self.chat.encode(next(self.texts)), int(self.tokenizer.eos_token_id)][: sampling.max_tokens]
        reason = "stop" if written[-1] == self.tokenizer.eos_token_id else "length"
        count = len(written)
        return Generation(np.array(written, np.int32), np.zeros(count, np.float32), np.ones(count, np.int32), reason)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def roll_out(policy: Any, sampling: Sampling = SAMPLING, task: Task = TASK, **settings: Any) -> Rollout:
    async def run() -> Rollout:
        workflow = open_workflow(RolloutConfig(workflow="environment", environment_spare=0, **settings))
        try:
            return await run_workflow(workflow, task, policy, sampling)
        finally:
            await close_workflow(workflow)

    return asyncio.run(run())


def test_observations_are_read_turns_are_actions_and_rewards_belong_to_turns() -> None:
    policy = Scripted(["one", "two", "three"])
    rollout = roll_out(policy, **COUNTING)
    assert "seed 5, task the task" in policy.read[0]
    assert policy.read[1].endswith("one<|im_end|>\n<|im_start|>user\n1: one<|im_end|>\n<|im_start|>assistant\n")
    outcome = rollout.outcome
    assert outcome.reward == 6.0
    assert outcome.turn_rewards == {0: 1.0, 1: 2.0, 2: 3.0 - 6.0}
    assert outcome.rewards == {"success": 1.0}
    about = {"seed": 5, "steps": 3, "ended": "done", "info": {"turn": 3}, "success": 1.0}
    assert outcome.metadata == {"environment": about}
    (row,) = rollout.rows
    assert rollout.turn_rewards(0) == [1.0, 2.0, -3.0]
    assert np.diff(np.r_[0, row.action_mask]).tolist().count(1) == 3


@pytest.mark.parametrize(
    ("pattern", "action"),
    [
        ("", "I say [a b], no: [c]."),
        (r"\[[^\]]*\]", "[c]"),
        (r"\[([^\]]*)\]", "c"),
        ("none of it", "I say [a b], no: [c]."),
    ],
)
def test_a_pattern_finds_the_action(pattern: str, action: str) -> None:
    policy = Scripted(["<think>[x]</think>\nI say [a b], no: [c].", "end"])
    roll_out(policy, environment_action=pattern, **(COUNTING | {"environment_options": {"turns": 2}}))
    assert f"1: {action}<|im_end|>" in policy.read[1]


def test_an_episode_that_is_cut_short_keeps_its_rewards_and_is_no_success() -> None:
    cut = roll_out(Scripted(["a"] * 9), environment_max_turns=2, **COUNTING)
    assert (cut.outcome.reward, cut.outcome.metadata["environment"]["ended"]) == (3.0, "max_turns")
    assert cut.outcome.rewards == {"success": 0.0}
    policy = Scripted(["a"] * 9)
    spent = roll_out(policy, Sampling(2 * (len(policy.chat.encode("a")) + 1)), **COUNTING)
    assert (spent.outcome.reward, spent.outcome.metadata["environment"]["ended"]) == (3.0, "max_tokens")
    assert spent.outcome.rewards == {"success": 0.0}


def test_a_limit_of_tokens_by_turn() -> None:
    policy = Scripted(["a b c d e f"] * 3)
    rollout = roll_out(policy, environment_turn_tokens=2, **COUNTING)
    assert rollout.rows[0].action_mask.sum() == 6


def test_a_fault_of_the_environment_fails_the_rollout() -> None:
    with pytest.raises(RolloutError, match="step raised SystemExit: 3"):
        roll_out(Scripted(["exit"]), environment="faulty_environments:Faulty")
    with pytest.raises(RolloutError, match="environment_seed is 'x'"):
        roll_out(Scripted([]), task=replace(TASK, metadata='{"environment_seed": "x"}'), **COUNTING)


def test_all_samples_of_a_task_play_the_same_game() -> None:
    splits = open_sources(
        Config.model_validate(
            {
                "tasks": {"source": "environment"},
                "rollout": {"environment": "textarena:GuessTheNumber-v0"},
                "eval": {"tasks": 50},
            }
        )
    )
    train = [splits.train[number] for number in range(500)]
    held_out = [splits.held_out[number] for number in range(50)]
    seeds = [item.metadata["environment_seed"] for item in train]
    assert len(set(seeds)) == 500
    assert not set(seeds) & {item.metadata["environment_seed"] for item in held_out}
    task = replace(TASK, prompt=train[0].prompt, metadata=json.dumps(train[0].metadata))
    read = set()
    for _ in range(2):
        policy = Scripted(["[10]", "[7]", "[3]"])
        rollout = roll_out(policy, task=task, environment="textarena:GuessTheNumber-v0", environment_max_turns=3)
        read.add(policy.read[-1])
        assert rollout.outcome.metadata["environment"]["seed"] == seeds[0]
    assert len(read) == 1


def test_the_source_needs_an_environment_and_takes_no_options() -> None:
    for settings, problem in (
        ({"tasks": {"source": "environment"}}, "needs rollout.environment"),
        (
            {"tasks": {"source": "environment", "options": {"a": 1}}, "rollout": {"environment": "textarena:Nim-v0"}},
            "takes none",
        ),
        ({"tasks": {"source": "environmen"}}, "did you mean 'environment'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            open_sources(Config.model_validate(settings))


def test_what_cannot_be_played_is_found_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"needs rollout\.environment"):
        check_workflow(RolloutConfig(workflow="environment"))
    with pytest.raises(ConfigError, match="its start raised OSError: no such game"):
        check_workflow(RolloutConfig(workflow="environment", environment="faulty_environments:FailsToStart"))
    check_workflow(RolloutConfig(workflow="environment", **COUNTING))
    with pytest.raises(ValueError, match="is no regular expression"):
        RolloutConfig(environment_action="[")
    with pytest.raises(ValueError, match="has 2 groups"):
        RolloutConfig(environment_action="(a)(b)")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = make_chat_model(tmp_path_factory.mktemp("model"), "qwen3")
    return TransformersPolicy(PolicyConfig(model=str(folder), device="cpu"))


def test_a_real_model_plays_many_games_at_once(policy: Policy) -> None:
    """Real tokens, real processes: the processes are fewer than the rollouts, and each rollout gets its own game."""

    async def run() -> list[Rollout]:
        config = RolloutConfig(
            workflow="environment",
            environment="textarena:GuessTheNumber-v0",
            environment_workers=4,
            environment_turn_tokens=4,
            environment_max_turns=3,
        )
        workflow = open_workflow(config)
        try:
            return await asyncio.gather(
                *(run_workflow(workflow, replace(TASK, seed=n), policy, Sampling(64, seed=n)) for n in range(12))
            )
        finally:
            await close_workflow(workflow)

    for number, rollout in enumerate(asyncio.run(run())):
        about = rollout.outcome.metadata["environment"]
        assert about["seed"] == number
        assert about["steps"] == len(rollout.turns_of_rows[0])
        assert rollout.rows[0].action_mask.sum() <= 12
    policy.close()
