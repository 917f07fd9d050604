"""Tests of what explorers rely on when they generate with a transformers model."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_policy import CONTEXT, EOS, generate_all, reference_logprobs, until

from rft.config import PolicyConfig
from rft.errors import PolicyError
from rft.policy.base import Generation, Sampling
from rft.policy.loading import load_model
from rft.policy.transformers.policy import TransformersPolicy

PROMPTS = ["a>", "backwards>", "tree>", "a>", "abcdefghijklmnopqrstuvwxyz>", "zz>", "tree>"]


def test_greedy_output_is_that_of_transformers_own_generate(policy: TransformersPolicy, model_folder: Path) -> None:
    prompts = [policy.encode(text) for text in PROMPTS]
    model = load_model(model_folder, device="cpu")
    written = generate_all(policy, [(prompt, Sampling(max_tokens=24, temperature=0.0)) for prompt in prompts])
    for prompt, generation in zip(prompts, written, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False
        )
        assert generation.tokens.tolist() == expected[0, len(prompt) :].tolist()
        assert generation.logprobs == pytest.approx(reference_logprobs(model, prompt, generation), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_logprobs_in_ragged_batches_are_those_of_a_full_forward_pass(
    policy: TransformersPolicy, model_folder: Path, temperature: float
) -> None:
    draw = random.Random(0)
    requests = []
    for seed in range(60):
        prompt = [draw.randrange(2, 28) for _ in range(draw.randrange(1, 40))]
        requests.append((prompt, Sampling(draw.randrange(1, 50), temperature, seed=seed)))
    model = load_model(model_folder, device="cpu")
    for (prompt, sampling), generation in zip(requests, generate_all(policy, requests), strict=True):
        assert generation.logprobs == pytest.approx(
            reference_logprobs(model, prompt, generation, temperature), abs=1e-4
        )
        assert len(generation.tokens) == len(generation.versions) <= sampling.max_tokens
        assert (generation.finish_reason == "stop") == (generation.tokens[-1] == EOS)
        assert EOS not in generation.tokens[:-1]


def test_a_sequence_depends_on_its_seed_and_not_on_the_others_in_its_batch(policy: TransformersPolicy) -> None:
    request = (policy.encode("tree>"), Sampling(20, seed=7))
    alone = generate_all(policy, [request])[0]
    others = [(policy.encode("a" * length + ">"), Sampling(30, seed=length)) for length in range(1, 30)]
    batched = generate_all(policy, [*others, request])[-1]
    other_seed = generate_all(policy, [(request[0], Sampling(20, seed=8))])[0]
    assert batched.tokens.tolist() == alone.tokens.tolist()
    assert other_seed.tokens.tolist() != alone.tokens.tolist()


def test_first_tokens_are_drawn_from_the_models_distribution(policy: TransformersPolicy, model_folder: Path) -> None:
    prompt = policy.encode("tree>")
    draws = 8000
    written = generate_all(policy, [(prompt, Sampling(1, temperature=1.5, seed=seed)) for seed in range(draws)])
    seen = np.bincount([int(generation.tokens[0]) for generation in written], minlength=29) / draws
    with torch.no_grad():
        logits = load_model(model_folder, device="cpu")(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = torch.softmax(logits / 1.5, dim=-1).numpy()
    assert np.abs(seen - expected).max() < 5 * np.sqrt(0.25 / draws)


def test_late_requests_do_not_wait_for_a_straggler(endless_policy: TransformersPolicy) -> None:
    policy = endless_policy

    async def scenario() -> list[int]:
        straggler = asyncio.create_task(policy.generate(policy.encode("a>"), Sampling(1000)))
        await until(lambda: policy.stats["running"])
        late = [await policy.generate(policy.encode("tree>"), Sampling(3, seed=seed)) for seed in range(5)]
        assert not straggler.done()
        return [len(generation.tokens) for generation in [*late, await straggler]]

    assert asyncio.run(scenario()) == [3, 3, 3, 3, 3, 1000]


def test_more_requests_than_the_batch_holds_are_all_served(model_folder: Path) -> None:
    policy = TransformersPolicy(PolicyConfig(model=str(model_folder), device="cpu", max_batch=7))
    requests = [(policy.encode("ab"[: 1 + n % 2] + ">"), Sampling(1 + n % 9, seed=n)) for n in range(200)]
    written = generate_all(policy, requests)
    policy.close()
    stats = policy.stats
    assert all(
        len(generation.tokens) <= sampling.max_tokens
        for generation, (_, sampling) in zip(written, requests, strict=True)
    )
    assert stats["sequences"] == 200
    assert stats["tokens"] == sum(len(generation.tokens) for generation in written)
    assert stats["running"] == stats["queued"] == stats["failed"] == 0


def test_new_weights_apply_between_two_tokens(
    endless_policy: TransformersPolicy, model_folder: Path, other_weights: Path
) -> None:
    policy = endless_policy
    prompt = policy.encode("tree>")

    async def scenario() -> list[Generation]:
        calls = [asyncio.create_task(policy.generate(prompt, Sampling(300, seed=seed))) for seed in range(8)]
        await until(lambda: policy.stats["steps"] >= 5)
        await asyncio.to_thread(policy.update_weights, other_weights, 3)
        assert policy.version == 3
        return await asyncio.gather(*calls)

    before, after = (load_model(folder, device="cpu") for folder in (model_folder, other_weights))
    for generation in asyncio.run(scenario()):
        assert set(generation.versions.tolist()) == {0, 3}
        assert (np.diff(generation.versions) >= 0).all()
        old = generation.versions == 0
        reference = reference_logprobs(before, prompt, generation)
        assert generation.logprobs[old] == pytest.approx(reference[old], abs=1e-4)
        assert np.abs(generation.logprobs[~old] - reference[~old]).max() > 0.1
        # The new weights read the old weights' keys and values, so their probabilities match only roughly.
        assert np.exp(generation.logprobs[~old]).mean() > np.exp(reference[~old]).mean()
    fresh = generate_all(policy, [(prompt, Sampling(20, seed=5))])[0]
    assert set(fresh.versions.tolist()) == {3}
    assert fresh.logprobs == pytest.approx(reference_logprobs(after, prompt, fresh), abs=1e-4)


def test_an_impossible_request_fails_alone_and_names_the_cause(policy: TransformersPolicy) -> None:
    good = (policy.encode("tree>"), Sampling(4))
    results = generate_all(
        policy,
        [good, ([], Sampling(4)), ([2] * CONTEXT, Sampling(4)), ([999], Sampling(4)), ([2], Sampling(0)), good],
    )
    assert isinstance(results[0], Generation)
    assert isinstance(results[-1], Generation)
    for result, message in zip(
        results[1:-1], ["empty", f"context of {CONTEXT}", "outside the vocabulary", "max_tokens"], strict=True
    ):
        assert isinstance(result, PolicyError)
        assert message in str(result)


def test_a_failing_batch_fails_its_own_requests_and_the_next_ones_are_served(
    policy: TransformersPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = policy._model.forward

    def broken(**inputs: torch.Tensor) -> None:
        raise RuntimeError("out of memory")

    request = (policy.encode("tree>"), Sampling(4))
    monkeypatch.setattr(policy._model, "forward", broken)
    failed = generate_all(policy, [request] * 5)
    monkeypatch.setattr(policy._model, "forward", forward)
    assert all(isinstance(result, PolicyError) and "out of memory" in str(result) for result in failed)
    assert isinstance(generate_all(policy, [request])[0], Generation)
    assert policy.stats["failed"] == 5


def test_diverged_weights_fail_the_request_and_name_the_version(
    policy: TransformersPolicy, model_folder: Path, tmp_path: Path
) -> None:
    diverged = tmp_path / "diverged"
    model = load_model(model_folder, device="cpu")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(diverged)
    policy.update_weights(diverged, 4)
    result = generate_all(policy, [(policy.encode("tree>"), Sampling(4))])[0]
    assert isinstance(result, PolicyError)
    assert "not finite at weight version 4" in str(result)
    policy.update_weights(model_folder, 5)
    assert isinstance(generate_all(policy, [(policy.encode("tree>"), Sampling(4))])[0], Generation)


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay(
    policy: TransformersPolicy, model_folder: Path, tmp_path: Path
) -> None:
    truncated = tmp_path / "truncated"
    shutil.copytree(model_folder, truncated)
    file = truncated / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    for folder in (tmp_path / "absent", truncated):
        with pytest.raises(PolicyError):
            policy.update_weights(folder, 9)
    assert policy.version == 0
    assert isinstance(generate_all(policy, [(policy.encode("tree>"), Sampling(4))])[0], Generation)


def test_a_canceled_request_frees_its_row(endless_policy: TransformersPolicy) -> None:
    async def scenario() -> None:
        call = asyncio.create_task(endless_policy.generate([2], Sampling(2000)))
        await until(lambda: endless_policy.stats["running"])
        call.cancel()
        await until(lambda: not endless_policy.stats["running"])

    asyncio.run(scenario())
    assert endless_policy.stats["steps"] < 1999


def test_closing_fails_unfinished_requests(endless_policy: TransformersPolicy) -> None:
    async def scenario() -> BaseException | Generation:
        call = asyncio.create_task(endless_policy.generate([2], Sampling(2000)))
        await until(lambda: endless_policy.stats["running"])
        await asyncio.to_thread(endless_policy.close)
        return (await asyncio.gather(call, return_exceptions=True))[0]

    assert isinstance(asyncio.run(scenario()), PolicyError)
    with pytest.raises(PolicyError, match="closed"):
        asyncio.run(endless_policy.generate([2], Sampling(1)))


def test_text_survives_the_tokenizer(policy: TransformersPolicy) -> None:
    assert policy.decode(policy.encode("tree>")) == "tree>"
    assert policy.decode([*policy.encode("eert"), EOS]) == "eert"


def test_a_missing_model_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"no model folder .*absent: set policy\.model"):
        TransformersPolicy(PolicyConfig(model=str(tmp_path / "absent")))
    with pytest.raises(PolicyError, match=r"holds no config\.json"):
        TransformersPolicy(PolicyConfig(model=str(tmp_path)))
