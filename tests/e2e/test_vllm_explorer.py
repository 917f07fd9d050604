"""A whole pipeline whose explorer generates with vLLM: it learns, and it survives the death of its engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from brokers import require_vllm
from pipeline import Pipeline, read_log, settings

from rft.weights.version_folders import versions_root
from schemas.events import NOT_WRITTEN
from tests.rft.policy.tiny_policy import make_model

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(600)]

STEPS = 40
VLLM: dict[str, Any] = {
    "rollout": {"samples": 8, "deadline_s": 60},
    "policy": {"engine": "vllm", "max_batch": 64},
    "processor": {"rewards": [{"function": "tests.e2e.counting_rewards:share_of_a"}], "group_deadline_s": 120},
}


def engine_of(run: Pipeline) -> list[psutil.Process]:
    """Return vLLM's processes below the run's explorer."""
    found = []
    for explorer in run.role("explorer"):
        found += [process for process in explorer.children(recursive=True) if process.name().startswith("VLLM")]
    return found


def newest_version(run: Pipeline) -> int:
    folders = versions_root(run.config.run.path, run.config.trainer.model_key).glob("v*")
    return max((int(folder.name[1:]) for folder in folders), default=-1)


def test_reward_rises_and_a_killed_engine_costs_no_rollout(
    pipeline: Callable[..., Pipeline], tmp_path: Path, embedded_broker: str
) -> None:
    require_vllm()
    model = make_model(tmp_path / "model", 0, head_dim=32)
    run = pipeline(
        settings(
            tmp_path,
            model,
            embedded_broker,
            **VLLM,
            trainer={"steps": STEPS, "groups_per_step": 8, "learning_rate": 3e-3, "max_staleness": 1},
            eval={"tasks": 8},
            launcher={"backoff_s": 0.1},
        )
    )
    run.wait_until(lambda: newest_version(run) >= 8, 240, "weight version 8")
    first = engine_of(run)
    assert first, run.tail()
    first[0].kill()
    assert run.wait(300) == 0, run.tail()
    assert not psutil.wait_procs(first, timeout=10)[1]

    log = read_log(run.config)
    rewards = [step.metrics["reward_mean"] for step in log.lineage]
    assert len(rewards) == STEPS
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3, rewards
    # The engine's death ended its rollouts; the explorer did not publish them as failed.
    logs = (run.config.run.path / "logs").glob("explorer*.log")
    assert any("engine died" in file.read_text(errors="replace") for file in logs)
    assert [experience.experience_id for experience in log.experiences if experience.error] == []
    written = {int(version) for experience in log.experiences for version in experience.versions}
    assert len(written) >= STEPS // 2


def test_vllm_receives_only_adapters_and_generates_with_them(
    pipeline: Callable[..., Pipeline], tmp_path: Path, embedded_broker: str
) -> None:
    """On policy, so that the trainer's log-probabilities, from PEFT's model, equal the sampler's."""
    require_vllm()
    model = make_model(tmp_path / "model", 0, head_dim=32)
    steps = 8
    run = pipeline(
        settings(
            tmp_path,
            model,
            embedded_broker,
            **VLLM,
            trainer={"steps": steps, "groups_per_step": 4, "learning_rate": 3e-2, "max_staleness": 0}
            | {"lora": {"rank": 8}},
            weights={"transport": "collective", "content": "adapters"},
            eval={"tasks": 0},
        )
    )
    assert run.wait(300) == 0, run.tail()
    log = read_log(run.config)
    gaps = [step.metrics["logprob_gap_max"] for step in log.lineage]
    assert len(gaps) == steps
    assert max(gaps) < 1e-3
    written = {int(version) for experience in log.experiences for version in experience.versions}
    assert written - {NOT_WRITTEN} == set(range(steps))
    newest = versions_root(run.config.run.path, "policy") / f"v{steps:08d}"
    assert (newest / "adapter_model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size
