"""Packed sequences are trained as if each had a row of its own."""

import numpy as np
import pytest
import torch
from synthetic import VOCABULARY, make_tiny_model, scored
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from rft.config import Config
from rft.errors import PolicyError
from rft.training.batch import StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.packing import ATTENTION, enable_packing, isolates_sequences, packed_arguments
from rft.training.sample import SampleFilter, read_sample

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
KINDS = {
    "qwen3": None,
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 4}),
}
ALGORITHMS = {
    "tokens": {"kl": "k3", "kl_coef": 0.2},
    "sequences": {"name": "gspo"},
    "supervised": {"name": "sft"},
}


def make_model(folder, kind):
    make_tiny_model(folder)
    if KINDS[kind] is not None:
        config, model, more = KINDS[kind]
        torch.manual_seed(1)
        model(config(**SIZES, **more)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp(request.param) / "model", request.param)


@pytest.fixture
def batch():
    members = [scored(g, s, 4) for g in range(3) for s in range(4)]
    for member in members[::2]:
        # A turn of the policy, one of its environment, one of the policy.
        member.experience.action_mask[1] = 1
    return StepBatch.from_samples([read_sample(0, 0, member, SampleFilter(VOCABULARY, "policy")) for member in members])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_packed_equals_padded_in_loss_and_gradient(model, batch, algorithm):
    results = []
    for packing in ("off", "on"):
        trainer = {"packing": packing, "micro_batch_tokens": 40, "max_grad_norm": 1e9}
        sections = {"policy": {"model": str(model)}, "trainer": trainer, "algorithm": ALGORITHMS[algorithm]}
        engine = TorchEngine(model, Config.model_validate(sections))
        if engine.needs_reference:
            engine.set_reference(model)
        gradients = {}
        engine.optimizer.register_step_pre_hook(
            lambda *_, e=engine, g=gradients: g.update({n: p.grad.clone() for n, p in e.model.named_parameters()})
        )
        results.append((engine.step(1, batch, version=0), gradients))
    (padded, expected), (packed, found) = results
    assert expected.keys() == found.keys()
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-5), name
    for name in padded.keys() - {"step_s"}:
        assert packed[name] == pytest.approx(padded[name], rel=1e-5, abs=1e-5), name


def test_a_packed_sequence_does_not_depend_on_those_before_it(tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, "llama")).eval()
    assert enable_packing(loaded)
    assert loaded.config._attn_implementation == ATTENTION
    tokens = torch.arange(12)[None] % VOCABULARY
    other = tokens.clone()
    other[0, :5] = (other[0, :5] + 1) % VOCABULARY
    with torch.no_grad():
        arguments = packed_arguments([5, 7], tokens.device)
        first, second = (loaded(input_ids=row, use_cache=False, **arguments).logits[0] for row in (tokens, other))
        unbounded = loaded(input_ids=other, use_cache=False).logits[0]
    assert torch.equal(first[5:], second[5:])
    assert not torch.allclose(first[5:], unbounded[5:], atol=1e-3)


def test_a_model_with_recurrent_state_is_detected_and_padded(tmp_path, batch):
    make_tiny_model(tmp_path)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    MambaForCausalLM(MambaConfig(**sizes)).save_pretrained(tmp_path)
    assert not isolates_sequences(AutoModelForCausalLM.from_pretrained(tmp_path).eval())
    sections = {"policy": {"model": str(tmp_path)}, "trainer": {"packing": "on"}}
    with pytest.raises(PolicyError, match="does not keep the sequences of a packed row apart"):
        TorchEngine(tmp_path, Config.model_validate(sections))


def test_auto_packs_long_tailed_lengths_and_pads_equal_ones(tmp_path):
    model = make_model(tmp_path, "qwen3")
    engine = TorchEngine(model, Config.model_validate({"policy": {"model": str(model)}}))
    for lengths, packed in (([8] * 16, False), ([3] * 15 + [40], True)):
        members = []
        for number, length in enumerate(lengths):
            ones = np.ones(length, dtype=np.uint8)
            changes = {"tokens": np.ones(length, dtype=np.int32), "action_mask": ones}
            changes |= {"logprobs": -ones.astype(np.float32), "versions": ones.astype(np.int32)}
            members.append(read_sample(0, number, scored(number, 0, 1, **changes), SampleFilter(VOCABULARY, "policy")))
        step = StepBatch.from_samples(members)
        assert engine._policy.should_pack(step, [[i] for i in range(len(lengths))]) is packed
