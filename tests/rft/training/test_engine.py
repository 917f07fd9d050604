"""The engine's step equals a plain loop over single samples and repeats bit for bit."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import VOCABULARY, make_tiny_model, scored
from transformers import Qwen3Config, Qwen3ForCausalLM

from rft.config import AlgorithmConfig, Config
from rft.errors import PolicyError
from rft.policy.loading import load_model
from rft.training.batch import StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.sample import SampleFilter, read_sample

GROUPS, SIZE = 3, 4

WANTED = SampleFilter(VOCABULARY, "policy")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def samples():
    return [read_sample(0, 0, scored(g, s, SIZE), WANTED) for g in range(GROUPS) for s in range(SIZE)]


def make_engine(model, *, algorithm=None, **trainer):
    trainer = {"learning_rate": 1e-2, "max_grad_norm": 1e9} | trainer
    return TorchEngine(
        model, Config(policy={"model": str(model)}, trainer=trainer, algorithm=algorithm or {}, run={"seed": 0})
    )


def take_step(engine, samples, number=1, temperature=1.0, version=0):
    samples = [replace(sample, temperature=temperature) for sample in samples]
    return engine.step(number, StepBatch.from_samples(samples), version=version)


def weights_of(engine):
    return torch.cat([p.detach().double().flatten() for p in engine.model.parameters()])


def plain_loss(model, samples, config, temperature, reference):
    """The same loss, one sample and one token at a time in float64."""
    model = load_model(model, "float32", "cpu").double()
    total = 0.0
    counts = [int(s.payload.action_mask[1:].sum()) for s in samples]
    for sample, count in zip(samples, counts, strict=True):
        rewards = [s.reward for s in samples if s.number == sample.number]
        mean = sum(rewards) / len(rewards)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
        advantage = (sample.reward - mean) / (deviation + 1e-6)
        tokens = torch.from_numpy(sample.payload.tokens).long()
        logits = model(input_ids=tokens[None]).logits[0] / temperature
        with torch.no_grad():
            old = reference(input_ids=tokens[None]).logits[0] / temperature
        for t in range(1, len(tokens)):
            if not sample.payload.action_mask[t]:
                continue
            logprob = torch.log_softmax(logits[t - 1], -1)[tokens[t]]
            ratio = torch.exp(logprob - float(sample.payload.logprobs[t]))
            loss = -torch.minimum(
                ratio * advantage, torch.clamp(ratio, 1 - config.clip_low, 1 + config.clip_high) * advantage
            )
            gap = torch.log_softmax(old[t - 1], -1)[tokens[t]] - logprob
            loss = loss + config.kl_coef * (torch.exp(gap) - gap - 1)
            weight = 1 / sum(counts) if config.aggregation == "token_mean" else 1 / (len(samples) * count)
            total = total + weight * loss
    return total, model


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_loss_and_gradient_equal_a_plain_float64_loop(model, samples, aggregation, temperature, tmp_path):
    algorithm = {"kl": "k3", "kl_coef": 0.3, "aggregation": aggregation, "clip_low": 0.1, "clip_high": 0.3}
    engine = make_engine(model, algorithm=algorithm, micro_batch_tokens=40)
    other = make_tiny_model(tmp_path / "other", seed=1)
    engine.set_reference(other)
    gradients = {}
    engine.optimizer.register_step_pre_hook(
        lambda *_: gradients.update({n: p.grad.double().clone() for n, p in engine.model.named_parameters()})
    )
    metrics = take_step(engine, samples, temperature=temperature)
    reference = load_model(other, "float32", "cpu").double()
    loss, plain = plain_loss(model, samples, AlgorithmConfig(**algorithm), temperature, reference)
    loss.backward()
    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in plain.parameters()))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5), name


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_micro_batch_size_and_packing_change_nothing(model, samples, aggregation):
    results = []
    for tokens, packing in ((16384, "off"), (40, "off"), (1, "off"), (16384, "on"), (40, "on"), (1, "on")):
        algorithm = {"aggregation": aggregation}
        engine = make_engine(model, algorithm=algorithm, micro_batch_tokens=tokens, packing=packing)
        norms = {}
        engine.optimizer.register_step_pre_hook(
            lambda *_, e=engine, n=norms: n.update(g=torch.cat([p.grad.flatten() for p in e.model.parameters()]))
        )
        metrics = take_step(engine, samples)
        results.append((metrics, norms["g"]))
    for metrics, gradient in results[1:]:
        assert torch.allclose(gradient, results[0][1], atol=1e-5)
        for name in ("loss", "grad_norm", "ratio_mean", "clip_share", "entropy", "logprob_gap_mean"):
            assert metrics[name] == pytest.approx(results[0][0][name], abs=1e-5), name


def test_the_same_steps_give_the_same_bytes(model, samples):
    digests = []
    for _ in range(2):
        engine = make_engine(model, micro_batch_tokens=50)
        for number in range(1, 6):
            take_step(engine, samples, number)
        digests.append(engine.serialized().sha256)
    assert digests[0] == digests[1]


def test_a_restored_engine_continues_bit_for_bit(model, samples, tmp_path):
    schedule = {"warmup_steps": 4, "learning_rate_schedule": "cosine", "decay_steps": 7}
    straight = make_engine(model, **schedule)
    for number in range(1, 7):
        take_step(straight, samples, number)

    first = make_engine(model, **schedule)
    for number in range(1, 4):
        take_step(first, samples, number)
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(first.serialized().data)
    second = make_engine(tmp_path, **schedule)
    assert second.serialized().sha256 == first.serialized().sha256
    second.restore_optimizer({name: tensor.clone() for name, tensor in first.optimizer_tensors().items()})
    for number in range(4, 7):
        take_step(second, samples, number)
    assert second.serialized().sha256 == straight.serialized().sha256


def test_published_weights_are_a_model_that_transformers_loads(model, samples, tmp_path):
    engine = make_engine(model)
    take_step(engine, samples)
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(engine.serialized().data)
    loaded = load_model(tmp_path, "float32", "cpu").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in engine.model.state_dict().items())


def test_a_gradient_that_is_not_finite_leaves_the_weights(model, samples):
    engine = make_engine(model)
    before = engine.serialized().sha256
    with torch.no_grad():
        engine.model.get_input_embeddings().weight[3, 0] = math.inf
    broken = engine.serialized().sha256
    metrics = take_step(engine, samples)
    assert metrics["skipped"] == 1.0
    assert engine.serialized().sha256 == broken != before
    assert all(math.isfinite(value) for value in metrics.values())


def test_warmup_raises_the_learning_rate_linearly(model, samples):
    engine = make_engine(model, warmup_steps=4, learning_rate=0.8)
    assert [take_step(engine, samples, n)["learning_rate"] for n in (1, 2, 4, 9)] == pytest.approx([0.2, 0.4, 0.8, 0.8])


def test_gradients_are_clipped_to_the_configured_norm(model, samples):
    engine = make_engine(model, max_grad_norm=1e-3)
    norms = []
    engine.optimizer.register_step_pre_hook(
        lambda *_: norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in engine.model.parameters())))
    )
    assert take_step(engine, samples)["grad_norm"] > 0.01
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)


def test_the_gap_to_the_sampler_is_measured_at_equal_versions_only(model, samples):
    engine = make_engine(model)
    with torch.no_grad():
        for sample in samples:
            tokens = torch.from_numpy(sample.payload.tokens).long()
            logprobs = torch.log_softmax(engine.model(input_ids=tokens[None]).logits[0], -1)
            true = torch.cat([torch.zeros(1), logprobs[:-1].gather(-1, tokens[1:, None]).squeeze(-1)])
            sample.payload.logprobs[:] = np.where(sample.payload.action_mask == 1, true.numpy(), 0)
    metrics = take_step(engine, samples, version=0)
    assert metrics["logprob_gap_max"] < 1e-5
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert take_step(engine, samples, 2, version=0)["logprob_gap_max"] > 1e-3
    assert "logprob_gap_max" not in take_step(engine, samples, 3, version=7)
    assert "logprob_gap_max" not in take_step(engine, samples, 4, version=None)


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32(model, samples):
    exact, rounded = make_engine(model), make_engine(model, dtype="bfloat16")
    exact_loss, loss = take_step(exact, samples)["loss"], take_step(rounded, samples)["loss"]
    assert loss == pytest.approx(exact_loss, abs=0.05)
    assert loss != exact_loss
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())


def test_uniform_groups_cost_no_computation_and_change_no_gradient(model, samples):
    """A KL term of coefficient 0 has the same gradient, but computes every sample."""
    for sample in samples:
        if sample.number == 1:
            sample.reward = 1.0
    skipping, complete = make_engine(model), make_engine(model, algorithm={"kl": "k3", "kl_coef": 0.0})
    complete.set_reference(model)
    counted, everything = take_step(skipping, samples), take_step(complete, samples)
    assert 0 < counted["action_tokens"] < everything["action_tokens"]
    assert counted["loss"] == pytest.approx(everything["loss"], rel=1e-5)
    assert counted["grad_norm"] == pytest.approx(everything["grad_norm"], rel=1e-4)
    all_uniform = [s for s in samples if s.number == 1]
    before = weights_of(skipping)
    assert take_step(skipping, all_uniform, number=2)["action_tokens"] == 0
    assert torch.equal(weights_of(skipping), before)


@pytest.mark.parametrize("algorithm", ["ppo", "decoupled_ppo"])
def test_a_value_head_and_several_updates_continue_bit_for_bit(model, samples, tmp_path, algorithm):
    settings = {"algorithm": {"name": algorithm}, "minibatches": 2, "epochs": 2}
    straight = make_engine(model, **settings)
    metrics = [take_step(straight, samples, number) for number in range(1, 5)][-1]
    assert metrics["updates"] == 4

    first = make_engine(model, **settings)
    for number in range(1, 3):
        take_step(first, samples, number)
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(first.serialized().data)
    second = make_engine(tmp_path, **settings)
    second.restore_optimizer({name: tensor.clone() for name, tensor in first.optimizer_tensors().items()})
    for number in range(3, 5):
        again = take_step(second, samples, number)
    assert second.serialized().sha256 == straight.serialized().sha256
    assert again["loss"] == metrics["loss"]
    assert again.get("value_crc32") == metrics.get("value_crc32")
    assert ("value_crc32" in metrics) == (algorithm == "ppo")


def test_a_value_head_learns_and_is_not_in_the_published_weights(model, samples):
    engine = make_engine(model, algorithm={"name": "ppo", "value_coef": 1.0}, learning_rate=1e-2)
    losses = [take_step(engine, samples, number)["value_loss"] for number in range(1, 30)]
    assert losses[-1] < 0.5 * losses[0]
    assert set(load_model(model, "float32", "cpu").state_dict()) >= set(engine.serialized().tensors())


def test_a_compiled_model_takes_the_same_steps(model, samples):
    """Lengths vary from step to step, and the published names are the model's."""
    torch._dynamo.utils.counters.clear()
    compiled, plain = make_engine(model, compile=True), make_engine(model, packing="off")
    for number, some in enumerate((samples, samples[: 2 * SIZE], samples), start=1):
        found, expected = take_step(compiled, some, number), take_step(plain, some, number)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4, abs=1e-6)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled.serialized().tensors().keys() == plain.serialized().tensors().keys()
    assert weights_of(compiled) == pytest.approx(weights_of(plain), abs=1e-5)


def test_a_teacher_with_fewer_tokens_is_refused(model, tmp_path):
    config = json.loads((model / "config.json").read_text()) | {"vocab_size": VOCABULARY - 4}
    Qwen3ForCausalLM(Qwen3Config(**config)).save_pretrained(tmp_path)
    with pytest.raises(PolicyError, match="knows 12 tokens, but the policy knows 16"):
        make_engine(model, algorithm={"name": "distill", "teacher": str(tmp_path)})
