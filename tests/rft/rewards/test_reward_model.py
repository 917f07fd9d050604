"""``reward_model``: a sequence classifier from a folder gives the same scores alone and in a batch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForSequenceClassification

from rft.config import RewarderConfig
from rft.errors import ConfigError
from rft.rewards.functions import Sample
from rft.rewards.judges import open_judge

SAMPLES = [Sample("x" * n, None, "p" * (n % 3)) for n in range(1, 12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("reward-model")
    config = Qwen3Config(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, num_labels=2, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForSequenceClassification(config).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "p": 2, "x": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(path)
    return path


def scores(folder: Path, samples: list[Sample], **options: object) -> list[float]:
    judge = open_judge("m", RewarderConfig(function="reward_model", options={"folder": str(folder), **options}))

    async def ask() -> list[float]:
        found = await asyncio.gather(*(judge.judge([sample]) for sample in samples))
        await judge.close()
        return [one.reward or 0.0 for (one,) in found]

    return asyncio.run(ask())


def test_a_batch_gives_what_the_model_gives_for_each(folder: Path) -> None:
    found = scores(folder, SAMPLES, batch_size=4, label=1)
    model = Qwen3ForSequenceClassification.from_pretrained(folder).eval()
    for sample, value in zip(SAMPLES, found, strict=True):
        tokens = torch.tensor([[2 if letter == "p" else 3 for letter in sample.prompt + sample.response]])
        with torch.no_grad():
            assert value == pytest.approx(float(model(tokens).logits[0, 1]), abs=1e-5)
    assert len(set(found)) > 5
    halved = scores(folder, SAMPLES[:2], label=1, activation="sigmoid")
    assert halved == pytest.approx([float(torch.tensor(value).sigmoid()) for value in found[:2]], abs=1e-6)


def test_what_cannot_be_loaded_is_named(folder: Path, tmp_path: Path) -> None:
    for options, text in (
        ({"folder": str(tmp_path)}, "holds no model"),
        ({"folder": str(folder), "label": 2}, "the model has 2 outputs"),
        ({"folder": str(folder), "text": "chat"}, "no chat template"),
        ({}, "options of reward_model are folder, text"),
    ):
        with pytest.raises(ConfigError, match=text):
            open_judge("m", RewarderConfig(function="reward_model", options=options))
