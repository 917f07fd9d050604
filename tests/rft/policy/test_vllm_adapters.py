"""Tests of LoRA adapters in vLLM: each version gives the model that PEFT gives, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brokers import require_vllm
from tiny_policy import (
    by_peft,
    generate_all,
    generate_during_update,
    make_adapters,
    make_model,
    reference_logprobs,
    send_to,
)

from rft.config import PolicyConfig
from rft.errors import PolicyError
from rft.model_files.model_folder import ADAPTER_FILE
from rft.policy.base import Sampling
from rft.policy.loading import load_model
from rft.weights.sender import Sender

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

WITHIN = 1e-3
"""Tolerance to PEFT's log-probabilities; the observed difference is 1e-5."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "model", 0, ends=False, head_dim=32)


@pytest.fixture(scope="module")
def versions(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    return [make_adapters(base, root / f"v{seed}", seed, rank=9) for seed in range(1, 5)]


def settings(model: Path, **changes: Any) -> PolicyConfig:
    """The configuration of a policy that loads adapters next to its base model."""
    sections = {"engine": "vllm", "model": str(model), "vllm": {"merge_adapters": False}}
    return PolicyConfig.model_validate(sections | changes)


@pytest.fixture(scope="module")
def policy(base: Path) -> Iterator[Any]:
    require_vllm()
    from rft.policy.vllm.policy import VllmPolicy

    policy = VllmPolicy(settings(base, max_batch=16, keep_kv=False), lora_rank=9)
    yield policy
    policy.close()


def check(policy: Any, model: Any, version: int) -> list[int]:
    """Check that greedy outputs and sampled logprobs are those of ``model``. Return the greedy tokens."""
    prompts = [policy.encode(text) for text in ("a>", "tree>", "backwards>")]
    requests = [(p, Sampling(24, temperature=t, seed=3)) for p in prompts for t in (0.0, 1.0)]
    written = generate_all(policy, requests)
    for (prompt, _), generation in zip(requests, written, strict=True):
        assert generation.versions.tolist() == [version] * 24
        assert generation.logprobs == pytest.approx(reference_logprobs(model, prompt, generation), abs=WITHIN)
    greedy: list[int] = written[0].tokens.tolist()
    return greedy


def test_versions_of_adapters_give_the_models_that_peft_gives_from_the_first_on(
    policy: Any, base: Path, versions: list[Path], tmp_path: Path
) -> None:
    """One test covers all, since the first adapters of an engine are special."""
    prompt = policy.encode("tree>")
    seen = [check(policy, load_model(base, device="cpu"), 0)]

    # Sequences that started without adapters cannot continue with them.
    for generation in asyncio.run(generate_during_update(policy, 8, 700, versions[0], 1)):
        assert generation.versions.tolist() == [1] * 700
        expected = reference_logprobs(by_peft(base, versions[0]), prompt, generation)
        assert generation.logprobs == pytest.approx(expected, abs=WITHIN)
    assert policy.stats["requeued"] == 8
    seen.append(check(policy, by_peft(base, versions[0]), 1))

    # From then on, sequences continue.
    for generation in asyncio.run(generate_during_update(policy, 8, 700, versions[1], 2)):
        assert set(generation.versions.tolist()) == {1, 2}
        assert (np.diff(generation.versions) >= 0).all()
        for version in (1, 2):
            part = generation.versions == version
            expected = reference_logprobs(by_peft(base, versions[version - 1]), prompt, generation)
            assert generation.logprobs[part] == pytest.approx(expected[part], abs=WITHIN)
            assert np.abs(generation.logprobs[~part] - expected[~part]).max() > 0.05
    assert policy.stats["requeued"] == 8
    seen.append(check(policy, by_peft(base, versions[1]), 2))

    sender = Sender("127.0.0.1", 0, "gloo")
    try:
        send_to(policy, sender, (versions[2] / ADAPTER_FILE).read_bytes(), 0, 3)
    finally:
        sender.abort()
    seen.append(check(policy, by_peft(base, versions[2]), 3))
    assert len({tuple(tokens) for tokens in seen}) == 4

    # Adapters that do not fit are refused, and the old ones stay.
    other = make_model(tmp_path / "other", 5, ends=False, head_dim=32)
    for folder, message in (
        (make_adapters(other, tmp_path / "foreign", 1), "trained on another model"),
        (make_adapters(base, tmp_path / "large", 1, rank=12), "rank 12 came"),
        (base, "a whole model came"),
    ):
        with pytest.raises(PolicyError, match=message):
            policy.update_weights(folder, 9)
    assert check(policy, by_peft(base, versions[2]), 3) == seen[-1]
    assert policy.error is None


def test_adapters_that_vllm_itself_refuses_leave_the_old_ones_in_use(
    policy: Any, base: Path, versions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.update_weights(versions[3], 4)
    before = check(policy, by_peft(base, versions[3]), 4)
    load_options = policy._load_options

    def other_bias(*arguments: Any) -> dict[str, Any]:
        source: dict[str, Any] = load_options(*arguments)
        return source | {"adapter": source["adapter"].replace('"bias": "none"', '"bias": "all"')}

    monkeypatch.setattr(policy, "_load_options", other_bias)
    with pytest.raises(PolicyError, match=r"vLLM cannot use the adapters of weight version 5: .*bias"):
        policy.update_weights(versions[0], 5)
    monkeypatch.undo()
    assert check(policy, by_peft(base, versions[3]), 4) == before
    policy.update_weights(versions[0], 6)
    check(policy, by_peft(base, versions[0]), 6)


def test_a_folder_of_adapters_is_served_as_a_model(base: Path, versions: list[Path]) -> None:
    require_vllm()
    from rft.policy.vllm.policy import VllmPolicy

    policy = VllmPolicy(settings(versions[1], max_batch=4))
    try:
        check(policy, by_peft(base, versions[1]), 0)
    finally:
        policy.close()
