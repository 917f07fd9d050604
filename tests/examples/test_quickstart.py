"""Tests of the quickstart's own parts: its model loads like any other, and its warm start avoids held-out words."""

import importlib.util
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from rft.config_sources import load_config
from rft.model_files.character_model import IGNORED, make_batch
from rft.policy.loading import load_model, load_tokenizer
from rft.tasks.splits import open_sources

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart_make_model", QUICKSTART / "make_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_is_a_folder_that_loads_without_the_example(example: ModuleType, tmp_path: Path) -> None:
    example.make_model(tmp_path / "model", steps=2)
    model, tokenizer = load_model(tmp_path / "model", device="cpu"), load_tokenizer(tmp_path / "model")
    assert 250_000 < model.num_parameters() < 400_000
    assert tokenizer.decode(tokenizer.encode("Tree>")) == "Tree>"
    assert len(tokenizer.encode("Tree>")) == 5
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_the_warm_start_shows_no_held_out_word(example: ModuleType) -> None:
    splits = open_sources(load_config(QUICKSTART / "quickstart.toml"))
    held_out = {splits.held_out[number].prompt for number in range(len(splits.held_out))}
    shown = [item for batch in islice(example.batches(splits.train), 20) for item in batch]
    assert len(held_out) >= 500
    assert held_out.isdisjoint(item.prompt for item in shown)
    assert sum(item.prompt != item.prompt.lower() for item in shown) >= len(shown) / 2


def test_only_the_answers_to_prompts_are_learned(example: ModuleType) -> None:
    tokenizer = example.make_tokenizer()
    items = next(example.batches(open_sources(load_config(QUICKSTART / "quickstart.toml")).train))
    tokens, labels = make_batch([example.example_of(item) for item in items], tokenizer)
    for item, row, row_labels in zip(items, tokens.tolist(), labels.tolist(), strict=True):
        prompt = tokenizer.encode(item.prompt)
        assert row[: len(prompt)] == prompt
        learned = [label for label in row_labels if label != IGNORED]
        assert learned == [*tokenizer.encode(item.answer), tokenizer.eos_token_id]
        assert row_labels[: len(prompt)] == [IGNORED] * len(prompt)
