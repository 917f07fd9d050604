"""Tests LoRA: only adapters are trained, versions are whole models or adapters, checkpoints hold adapters."""

import json

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from synthetic import VOCABULARY, make_tiny_model, scored
from transformers import AutoModelForCausalLM

from rft.config import Config
from rft.errors import PolicyError
from rft.lora.adapter import Adapter, base_digest
from rft.lora.base_model import LoraBaseModel
from rft.training.batch import StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.sample import SampleFilter, read_sample
from rft.weights.wire_dtype import weights_in


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def batch():
    wanted = SampleFilter(VOCABULARY, "policy")
    return StepBatch.from_samples([read_sample(0, 0, scored(g, s, 4), wanted) for g in range(3) for s in range(4)])


def make_engine(model, folder=None, *, algorithm=None, content="model", **trainer):
    trainer = {"learning_rate": 1e-2, "lora": {"rank": 3, "alpha": 6}} | trainer
    sections = {"policy": {"model": str(model)}, "trainer": trainer, "algorithm": algorithm or {}}
    sections["weights"] = {"content": content}
    return TorchEngine(folder or model, Config.model_validate(sections))


def write_version(engine, model, folder):
    folder.mkdir()
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(engine.serialized().data)
    return folder


def test_only_adapters_are_trained_and_the_published_version_is_the_model_that_was_trained(model, batch, tmp_path):
    engine = make_engine(model)
    plain = engine.serialized().tensors()
    base = {n: p.detach().clone() for n, p in engine.model.named_parameters() if "lora_" not in n}
    for number in range(1, 4):
        engine.step(number, batch, version=0)
    assert all(torch.equal(p, base[n]) for n, p in engine.model.named_parameters() if "lora_" not in n)
    assert {name.rsplit("/", 1)[0] for name in engine.optimizer_tensors()} == {
        name for name, _ in engine.model.named_parameters() if "lora_" in name
    }
    published = engine.serialized().tensors()
    changed = {name for name in plain if not torch.equal(plain[name], published[name])}
    assert published.keys() == plain.keys()
    assert changed == {name for name in plain if name.endswith("_proj.weight")}
    loaded = AutoModelForCausalLM.from_pretrained(write_version(engine, model, tmp_path / "version")).eval()
    tokens = torch.arange(9)[None] % VOCABULARY
    with torch.no_grad():
        assert torch.allclose(loaded(tokens).logits, engine.model(tokens).logits, atol=1e-5)


def test_a_checkpoint_holds_adapters_that_peft_loads_and_training_goes_on_to_the_last_bit(model, batch, tmp_path):
    straight, first = make_engine(model), make_engine(model)
    for number in range(1, 5):
        straight.step(number, batch, version=0)
    for number in range(1, 3):
        first.step(number, batch, version=0)
    files = first.checkpoint_files()
    assert set(files) == {"adapter_model.safetensors", "adapter_config.json"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    second = make_engine(model, tmp_path)
    assert second.serialized().sha256 == first.serialized().sha256
    assert second.base_digest == first.base_digest
    second.restore_optimizer({name: tensor.clone() for name, tensor in first.optimizer_tensors().items()})
    for number in range(3, 5):
        second.step(number, batch, version=0)
    assert second.serialized().sha256 == straight.serialized().sha256

    tokens = torch.arange(9)[None] % VOCABULARY
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(by_peft(tokens).logits, first.model(tokens).logits, atol=1e-5)
    assert json.loads(files["adapter_config.json"])["r"] == 3


def test_the_base_model_is_the_reference(model, batch):
    algorithm = {"kl": "k3", "kl_coef": 0.5}
    engine = make_engine(model, algorithm=algorithm)
    assert engine.set_reference(model) == engine.base_digest
    assert engine.step(1, batch, version=0)["kl"] == pytest.approx(0, abs=1e-6)
    assert engine.step(2, batch, version=0)["kl"] > 1e-6


def test_gradient_checkpointing_changes_no_gradient(model, batch):
    losses = []
    for checkpointing in (False, True):
        engine = make_engine(model, lora={"rank": 0}, gradient_checkpointing=checkpointing)
        losses.append([engine.step(number, batch, version=0)["grad_norm"] for number in range(1, 4)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_adapters_of_another_rank_and_missing_modules_are_refused(model, tmp_path):
    for name, content in make_engine(model).checkpoint_files().items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PolicyError, match="belong to another model, or to another"):
        make_engine(model, tmp_path, lora={"rank": 2})
    with pytest.raises(PolicyError, match="target_modules"):
        make_engine(model, lora={"rank": 2, "target_modules": ["nothing"]})


def test_versions_of_adapters_stand_for_exactly_the_merged_model(model, batch):
    merging, sending = make_engine(model), make_engine(model, content="adapters")
    for number in range(1, 4):
        merging.step(number, batch, version=0)
        sending.step(number, batch, version=0)
    sent, merged = sending.serialized(), merging.serialized()
    assert len(sent.data) < len(merged.data) / 2
    described = Adapter.from_metadata(sent.metadata)
    assert described is not None
    assert described == Adapter(3, 6, described.target_modules, base_digest(model))
    modules = {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}
    assert {name.rsplit(".")[-1] for name in described.target_modules} == modules
    whole = LoraBaseModel(model).merge(sent.tensors(), described)
    assert whole.keys() == merged.tensors().keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in merged.tensors().items())
    assert sending.serialized().sha256 == sent.sha256 != merged.sha256
    rounded = weights_in("bfloat16", sent)
    assert Adapter.from_metadata(rounded.metadata) == described
    assert {tensor.dtype for tensor in rounded.tensors().values()} == {torch.bfloat16}


def test_publishing_adapters_needs_lora_and_a_whole_base_model(model, batch, tmp_path):
    with pytest.raises(ValidationError, match=r"set trainer.lora.rank"):
        make_engine(model, content="adapters", lora={"rank": 0})
    trained = make_engine(model)
    trained.step(1, batch, version=0)
    for name, content in trained.checkpoint_files().items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PolicyError, match=r"holds adapters\. Merge them"):
        make_engine(tmp_path, content="adapters")
    # Merged, they are a whole model, and further training starts with new adapters on it.
    onto = make_engine(tmp_path)
    assert onto.serialized().sha256 == trained.serialized().sha256 != make_engine(model).serialized().sha256
