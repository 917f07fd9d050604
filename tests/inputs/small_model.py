"""Makes a model folder of a few kilobytes with a character tokenizer, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789>+=. "
CONTEXT = 64
WIDTH = 8


def make_small_model(folder: Path, *, context: int = CONTEXT, characters: str = CHARACTERS) -> Path:
    """Write the folder of a Qwen3 with one layer, whose weights are all 0."""
    folder.mkdir(exist_ok=True)
    size = len(characters) + 2
    description = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": size, "hidden_size": WIDTH,
        "max_position_embeddings": context, "eos_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(description))
    tensors = {"model.embed_tokens.weight": (size, WIDTH), "model.norm.weight": (WIDTH,)}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        tensors[f"model.layers.0.self_attn.{name}.weight"] = (WIDTH, WIDTH)
    for name in ("gate_proj", "up_proj", "down_proj"):
        tensors[f"model.layers.0.mlp.{name}.weight"] = (WIDTH, WIDTH)
    save_file({name: np.zeros(shape, np.float32) for name, shape in tensors.items()}, folder / "model.safetensors")
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
