"""Tests of LoRA adapters as weight versions of a transformers policy: by folder, by collective, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_policy import by_peft, generate_all, make_adapters, make_model, reference_logprobs, send_to
from transformers import AutoModelForCausalLM

from infra.preflight.model import check_model
from rft.config import Config
from rft.errors import PolicyError
from rft.lora.adapter import Adapter, base_digest
from rft.lora.base_model import merged_weights, write_merged_model
from rft.model_files.model_folder import ADAPTER_CONFIG, ADAPTER_FILE
from rft.policy import open_policy
from rft.policy.base import Policy, Sampling
from rft.policy.loading import load_model
from rft.weights.sender import Sender

WITHIN = 1e-4


@pytest.fixture(scope="module")
def versions(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapters(model_folder, root / f"v{seed}", seed) for seed in (1, 2)]


def greedy(policy: Policy) -> Any:
    return generate_all(policy, [(policy.encode("tree>"), Sampling(20, temperature=0.0))])[0]


def test_adapters_by_folder_or_collective_give_the_model_that_peft_gives(
    policy: Policy, model_folder: Path, versions: list[Path]
) -> None:
    prompt = policy.encode("tree>")
    sender = Sender("127.0.0.1", 0, "gloo")
    try:
        policy.update_weights(versions[0], 1)
        first = greedy(policy)
        send_to(policy, sender, (versions[1] / ADAPTER_FILE).read_bytes(), 0, 2)
        second = greedy(policy)
    finally:
        sender.abort()
    for folder, version, written in zip(versions, (1, 2), (first, second), strict=True):
        expected = reference_logprobs(by_peft(model_folder, folder), prompt, written)
        assert written.logprobs == pytest.approx(expected, abs=WITHIN)
        assert set(written.versions.tolist()) == {version}
    assert first.tokens.tolist() != second.tokens.tolist()
    # A later version replaces an earlier one and is not added to it; a whole model replaces both.
    policy.update_weights(versions[0], 3)
    assert greedy(policy).logprobs == pytest.approx(first.logprobs, abs=1e-6)
    policy.update_weights(model_folder, 4)
    plain = greedy(policy)
    assert plain.logprobs == pytest.approx(
        reference_logprobs(load_model(model_folder, device="cpu"), prompt, plain), abs=WITHIN
    )


def refused(policy: Policy, folder: Path, message: str) -> None:
    before = greedy(policy)
    with pytest.raises(PolicyError, match=message):
        policy.update_weights(folder, 9)
    after = greedy(policy)
    assert after.tokens.tolist() == before.tokens.tolist()
    assert after.versions.tolist() == before.versions.tolist()


def test_adapters_of_another_model_are_refused_and_the_old_weights_stay(
    policy: Policy, model_folder: Path, other_weights: Path, versions: list[Path], tmp_path: Path
) -> None:
    refused(policy, make_adapters(other_weights, tmp_path / "other", 1), "trained on another model")
    wide = make_model(tmp_path / "wide", 0, head_dim=16)
    refused(policy, make_adapters(wide, tmp_path / "shapes", 1), "has shape")
    tensors = load_file(versions[0] / ADAPTER_FILE)
    header = Adapter.from_folder(versions[0])
    assert header is not None
    some = next(name for name in tensors if name.endswith("lora_B.weight"))
    for name, changed, message in (
        ("halved", {k: v for k, v in tensors.items() if k != some}, "has shape None"),
        ("unknown", {k.replace("q_proj", "z_proj"): v for k, v in tensors.items()}, "there is no .*z_proj.weight"),
        ("more", tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, "has shape"),
    ):
        (tmp_path / name).mkdir()
        save_file(changed, tmp_path / name / ADAPTER_FILE, header.metadata())
        refused(policy, tmp_path / name, message)
    (tmp_path / "cut").mkdir()
    whole = (versions[0] / ADAPTER_FILE).read_bytes()
    for size in (0, 5, 100, len(whole) // 2):
        (tmp_path / "cut" / ADAPTER_FILE).write_bytes(whole[:size])
        refused(policy, tmp_path / "cut", "cannot read the weights")
        with pytest.raises(PolicyError, match="cannot read the adapters"):
            Adapter.from_folder(tmp_path / "cut")


def test_a_folder_of_adapters_is_loaded_as_a_model_and_written_as_one(
    model_folder: Path, versions: list[Path], tmp_path: Path
) -> None:
    tokens = torch.arange(9)[None]
    whole = write_merged_model(versions[0], tmp_path / "whole")
    assert write_merged_model(versions[0], whole) == whole
    models = [
        by_peft(model_folder, versions[0]),
        AutoModelForCausalLM.from_pretrained(versions[0]).eval(),  # loaded by transformers and PEFT alone
        load_model(versions[0], device="cpu"),
        load_model(whole, device="cpu"),
    ]
    with torch.no_grad():
        first, *others = (model(tokens).logits for model in models)
    assert all(torch.allclose(first, other, atol=1e-5) for other in others)
    assert not (whole / ADAPTER_CONFIG).exists()
    opened = open_policy(Config.model_validate({"policy": {"model": str(versions[0]), "device": "cpu"}}))
    try:
        written = greedy(opened)
        prompt = opened.encode("tree>")
    finally:
        opened.close()
    assert written.logprobs == pytest.approx(reference_logprobs(models[0], prompt, written), abs=WITHIN)


@pytest.fixture
def write_peft_folder(model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder as PEFT does, with other ``settings`` of its LoraConfig."""

    def write(**settings: Any) -> Path:
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model_folder), LoraConfig(r=2, target_modules=["q_proj"], **settings)
        )
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(tmp_path / "peft")
        return tmp_path / "peft"

    return write


def test_adapters_that_others_made_with_peft_are_read(write_peft_folder: Any, model_folder: Path) -> None:
    folder = write_peft_folder(lora_alpha=5)
    assert Adapter.from_folder(folder) == Adapter(2, 5.0, ("q_proj",))
    expected = by_peft(model_folder, folder).merge_and_unload().state_dict()
    whole = merged_weights(folder)
    assert all(torch.allclose(expected[name], tensor, atol=1e-6) for name, tensor in whole.items())


@pytest.mark.parametrize("setting", [{"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 4}}])
def test_adapters_that_mean_something_else_are_refused(write_peft_folder: Any, setting: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=next(iter(setting))):
        merged_weights(write_peft_folder(**setting))


def test_an_error_names_a_missing_base_model(versions: list[Path], tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    for file in versions[0].iterdir():
        (lost / file.name).write_bytes(file.read_bytes())
    settings = json.loads((lost / ADAPTER_CONFIG).read_text())
    (lost / ADAPTER_CONFIG).write_text(json.dumps(settings | {"base_model_name_or_path": "org/model"}))
    config = Config.model_validate({"policy": {"model": str(lost)}})
    for use in (lambda: load_model(lost, device="cpu"), lambda: check_model(config)):
        with pytest.raises(PolicyError, match="adapters of the model 'org/model'"):
            use()


def test_a_base_digest_depends_on_names_and_bytes(model_folder: Path, other_weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes())
    assert base_digest(copy) == base_digest(model_folder) != base_digest(other_weights)
