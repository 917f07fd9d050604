"""Tests of what explorers rely on when they generate with vLLM, and trainers when they learn from it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from brokers import require_vllm
from safetensors.torch import load_file, save_file
from tiny_policy import (
    CONTEXT,
    by_peft,
    generate_all,
    generate_during_update,
    make_adapters,
    make_model,
    reference_logprobs,
    send_to,
    until,
)

from rft.errors import PolicyError, WeightsError
from rft.policy.base import Sampling
from rft.policy.loading import load_model
from rft.weights.sender import Sender
from tests.rft.weights.receivers import describe, transfer_spec, weights_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PROMPTS = ["a>", "backwards>", "tree>", "a>", "abcdefghijklmnopqrstuvwxyz>"]
WITHIN = 1e-3
"""Tolerance to transformers' log-probabilities; the observed difference is 1e-5."""


@pytest.fixture
def policy(shared_vllm: Any, vllm_folders: list[Path]) -> Iterator[Any]:
    """The engine with the first weights and the default settings, whatever earlier tests did."""
    config = shared_vllm._config
    shared_vllm.update_weights(vllm_folders[0], 0)
    yield shared_vllm
    shared_vllm._config = config


def with_settings(policy: Any, **changes: Any) -> None:
    policy._config = policy._config.model_copy(update=changes)


def test_after_each_of_three_updates_greedy_outputs_and_logprobs_are_those_of_transformers(
    policy: Any, vllm_folders: list[Path]
) -> None:
    prompts = [policy.encode(text) for text in PROMPTS]
    seen = set()
    for version, folder in enumerate(vllm_folders):
        if version:
            policy.update_weights(folder, version)
        assert policy.version == version
        model = load_model(folder, device="cpu")
        written = generate_all(policy, [(prompt, Sampling(24, temperature=0.0)) for prompt in prompts])
        for prompt, generation in zip(prompts, written, strict=True):
            expected = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False
            )
            assert generation.tokens.tolist() == expected[0, len(prompt) :].tolist()
            assert generation.logprobs == pytest.approx(reference_logprobs(model, prompt, generation), abs=WITHIN)
            assert generation.versions.tolist() == [version] * 24
        seen.add(written[0].tokens.tobytes())
    assert len(seen) == len(vllm_folders)


def test_a_stop_text_ends_a_generation_and_stays_in_its_tokens(policy: Any) -> None:
    prompt = policy.encode("tree>")
    (free,) = generate_all(policy, [(prompt, Sampling(24, 0.0))])
    text = policy.decode(free.tokens.tolist())
    stop = text[5:7]
    (stopped,) = generate_all(policy, [(prompt, Sampling(24, 0.0, stop=("none", stop)))])
    assert stopped.finish_reason == "stop"
    assert stopped.tokens.tolist() == free.tokens[: text.index(stop) + 2].tolist()
    assert stopped.logprobs == pytest.approx(free.logprobs[: len(stopped.tokens)], abs=WITHIN)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (1.0, 1.0), (1.7, 1.0), (1.0, 0.7), (1.4, 0.8)])
def test_logprobs_are_those_of_the_distribution_that_was_sampled_from(
    policy: Any, vllm_folders: list[Path], temperature: float, top_p: float
) -> None:
    draw = random.Random(0)
    requests = []
    for seed in range(20):
        prompt = [draw.randrange(2, 28) for _ in range(draw.randrange(1, 40))]
        requests.append((prompt, Sampling(draw.randrange(1, 50), temperature, top_p, seed=seed)))
    model = load_model(vllm_folders[0], device="cpu")
    for (prompt, sampling), generation in zip(requests, generate_all(policy, requests), strict=True):
        expected = reference_logprobs(model, prompt, generation, temperature, top_p)
        assert generation.logprobs == pytest.approx(expected, abs=WITHIN)
        assert len(generation.tokens) == len(generation.versions) == sampling.max_tokens
        assert generation.finish_reason == "length"


def test_a_generation_that_spans_an_update_carries_both_versions_and_each_part_is_its_versions_own(
    policy: Any, vllm_folders: list[Path]
) -> None:
    with_settings(policy, keep_kv=False)
    prompt = policy.encode("tree>")
    models = {version: load_model(vllm_folders[version], device="cpu") for version in (0, 2)}
    for generation in asyncio.run(generate_during_update(policy, 8, 700, vllm_folders[2], 2)):
        assert set(generation.versions.tolist()) == {0, 2}
        assert (np.diff(generation.versions) >= 0).all()
        for version, model in models.items():
            part = generation.versions == version
            expected = reference_logprobs(model, prompt, generation)
            assert generation.logprobs[part] == pytest.approx(expected[part], abs=WITHIN)
            assert np.abs(generation.logprobs[~part] - expected[~part]).max() > 0.1


def test_kept_keys_and_values_are_those_of_the_old_weights_and_no_later_request_reads_them(
    policy: Any, vllm_folders: list[Path]
) -> None:
    with_settings(policy, keep_kv=True)
    prompt = policy.encode("tree>")
    before, after = (load_model(vllm_folders[version], device="cpu") for version in (0, 1))
    for generation in asyncio.run(generate_during_update(policy, 8, 700, vllm_folders[1], 1)):
        assert set(generation.versions.tolist()) == {0, 1}
        old = int((generation.versions == 0).sum())
        read = torch.tensor([[*prompt, *generation.tokens.tolist()]])
        with torch.no_grad():
            # The token before the first new one is read by the new weights, all before it by the old ones.
            split = len(prompt) + old - 1
            first = before(input_ids=read[:, :split], use_cache=True)
            second = after(input_ids=read[:, split:-1], past_key_values=first.past_key_values)
            logits = torch.cat([first.logits[0, len(prompt) - 1 :], second.logits[0]])
        expected = torch.log_softmax(logits, -1).gather(-1, read[0, len(prompt) :, None]).squeeze(-1).numpy()
        assert generation.logprobs == pytest.approx(expected, abs=WITHIN)
    fresh = generate_all(policy, [(prompt, Sampling(20, seed=5))])[0]
    assert fresh.logprobs == pytest.approx(reference_logprobs(after, prompt, fresh), abs=WITHIN)


def test_requeued_sequences_start_over_with_the_new_weights(policy: Any, vllm_folders: list[Path]) -> None:
    with_settings(policy, on_update="requeue")
    before = policy.stats["requeued"]
    model = load_model(vllm_folders[3], device="cpu")
    for generation in asyncio.run(generate_during_update(policy, 8, 700, vllm_folders[3], 3)):
        assert generation.versions.tolist() == [3] * 700
        expected = reference_logprobs(model, policy.encode("tree>"), generation)
        assert generation.logprobs == pytest.approx(expected, abs=WITHIN)
    assert policy.stats["requeued"] == before + 8


def test_new_weights_wait_for_sequences_that_are_to_finish(policy: Any, vllm_folders: list[Path]) -> None:
    with_settings(policy, on_update="finish")
    for generation in asyncio.run(generate_during_update(policy, 8, 300, vllm_folders[1], 1)):
        assert generation.versions.tolist() == [0] * 300
    assert generate_all(policy, [([2], Sampling(3))])[0].versions.tolist() == [1, 1, 1]


def test_same_seed_same_tokens_other_seed_others(policy: Any) -> None:
    prompt = policy.encode("tree>")
    one, again, other = generate_all(policy, [(prompt, Sampling(20, seed=seed)) for seed in (7, 7, 8)])
    assert one.tokens.tolist() == again.tokens.tolist() != other.tokens.tolist()


def test_late_requests_do_not_wait_for_a_straggler(policy: Any) -> None:
    async def scenario() -> None:
        straggler = asyncio.create_task(policy.generate(policy.encode("a>"), Sampling(2000)))
        await until(lambda: policy.stats["running"])
        for seed in range(3):
            assert len((await policy.generate(policy.encode("tree>"), Sampling(3, seed=seed))).tokens) == 3
        assert not straggler.done()
        straggler.cancel()
        await until(lambda: not policy.stats["running"])

    asyncio.run(scenario())


def test_an_impossible_request_fails_alone_and_names_the_cause(policy: Any) -> None:
    good = (policy.encode("tree>"), Sampling(4))
    bad = [([], Sampling(4)), ([2] * CONTEXT, Sampling(4)), ([999], Sampling(4)), ([2], Sampling(0))]
    first, *failed, last = generate_all(policy, [good, *bad, good])
    assert first.tokens.tolist() == last.tokens.tolist()
    messages = ["empty", f"context of {CONTEXT}", "outside the vocabulary", "max_tokens"]
    for error, message in zip(failed, messages, strict=True):
        assert isinstance(error, PolicyError)
        assert message in str(error)


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay(
    policy: Any, vllm_folders: list[Path], tmp_path: Path
) -> None:
    prompt = policy.encode("tree>")
    before = generate_all(policy, [(prompt, Sampling(10, temperature=0.0))])[0]
    tensors = load_file(vllm_folders[1] / "model.safetensors")
    for name, changed, message in (
        ("lacking", {k: v for k, v in tensors.items() if "q_norm" not in k}, "is missing"),
        ("unknown", tensors | {"more": torch.zeros(1)}, "unknown tensor more"),
        ("shape", tensors | {"model.norm.weight": torch.zeros(3)}, "has shape"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(PolicyError, match=message):
            policy.update_weights(folder, 9)
    cut = tmp_path / "cut"
    shutil.copytree(vllm_folders[1], cut)
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PolicyError, match="cannot read"):
        policy.update_weights(cut, 9)
    after = generate_all(policy, [(prompt, Sampling(10, temperature=0.0))])[0]
    assert after.tokens.tolist() == before.tokens.tolist()
    assert set(after.versions.tolist()) == {0}


@pytest.mark.parametrize("backend", ["gloo", "ipc"])
def test_weights_come_by_a_collective_too_and_those_of_another_model_are_refused(
    policy: Any, vllm_folders: list[Path], backend: str
) -> None:
    """The trainer's own sender, over either backend, into the engine's worker, while it generates."""
    sender = Sender("127.0.0.1", 0, backend)
    prompt = policy.encode("tree>")
    assert policy.receivers == 1
    try:
        for epoch, version in enumerate((1, 2)):
            weights = (vllm_folders[version] / "model.safetensors").read_bytes()
            spec = send_to(policy, sender, weights, epoch, version)
            written = generate_all(policy, [(prompt, Sampling(20, seed=5))])[0]
            model = load_model(vllm_folders[version], device="cpu")
            assert written.versions.tolist() == [version] * 20
            assert written.logprobs == pytest.approx(reference_logprobs(model, prompt, written), abs=WITHIN)
        other = weights_of(7)
        with pytest.raises(PolicyError, match="weights of another model"):
            policy.receive_weights([transfer_spec(sender, describe(other), 2, "explorer")], 3)
        # No one sends: the deadline ends the transfer, and the old weights stay.
        began = time.monotonic()
        absent = replace(spec, epoch=3, rendezvous="127.0.0.1:9/0", deadline_s=1.0)
        with pytest.raises(WeightsError, match="version 3"):
            policy.receive_weights([absent], 3)
        assert time.monotonic() - began < 10
        assert policy.version == 2
    finally:
        sender.abort()


def test_adapters_are_merged_into_the_base_model_and_replace_the_previous_version(
    policy: Any, vllm_folders: list[Path], tmp_path: Path
) -> None:
    """Merging is the default on CPUs; the engine is one that takes whole models."""
    base, prompt = vllm_folders[0], policy.encode("tree>")
    folders = [make_adapters(base, tmp_path / f"adapters-{seed}", seed) for seed in (1, 2)]
    policy.update_weights(folders[0], 1)
    sender = Sender("127.0.0.1", 0, "gloo")
    try:
        first = generate_all(policy, [(prompt, Sampling(24, temperature=0.0))])[0]
        send_to(policy, sender, (folders[1] / "adapter_model.safetensors").read_bytes(), 0, 2)
        second = generate_all(policy, [(prompt, Sampling(24, temperature=0.0))])[0]
    finally:
        sender.abort()
    for folder, version, written in zip(folders, (1, 2), (first, second), strict=True):
        expected = reference_logprobs(by_peft(base, folder), prompt, written)
        assert written.logprobs == pytest.approx(expected, abs=WITHIN)
        assert written.versions.tolist() == [version] * 24
    with pytest.raises(PolicyError, match="trained on another model"):
        policy.update_weights(make_adapters(vllm_folders[1], tmp_path / "other", 1), 3)


EXPLORER = """
import sys, time
from rft.config import PolicyConfig
from rft.policy.vllm.policy import VllmPolicy

if __name__ == "__main__":
    policy = VllmPolicy(PolicyConfig(engine="vllm", model=sys.argv[1], max_batch=4))
    print("there", flush=True)
    time.sleep(600)
"""


def test_a_killed_explorer_leaves_no_engine_behind(vllm_folders: list[Path], tmp_path: Path) -> None:
    require_vllm()
    script = tmp_path / "explorer.py"
    script.write_text(EXPLORER)
    explorer = subprocess.Popen(
        [sys.executable, str(script), str(vllm_folders[0])],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])},
    )
    try:
        assert explorer.stdout is not None
        assert any(line == b"there\n" for line in explorer.stdout)  # vLLM talks before
        engine = [p for p in psutil.Process(explorer.pid).children(recursive=True) if p.name().startswith("VLLM")]
        assert len(engine) >= 2
        explorer.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs(engine, timeout=20)[1]
    finally:
        explorer.kill()
        explorer.wait()


def test_an_error_names_a_model_that_the_engine_cannot_serve_and_the_cause(tmp_path: Path) -> None:
    require_vllm()
    from rft.config import PolicyConfig
    from rft.policy.vllm.policy import VllmPolicy

    folder = make_model(tmp_path / "narrow", 0, head_dim=8)
    with pytest.raises(PolicyError, match="head_dim"):
        VllmPolicy(PolicyConfig(engine="vllm", model=str(folder)))
