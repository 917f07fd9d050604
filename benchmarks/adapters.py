"""Compares sending LoRA adapters with sending merged models.

python benchmarks/adapters.py [--rank 16] [--rounds 5] [--sequences 16] [--tokens 48]

A Llama of 135 million random weights (the shape of SmolLM2-135M) gets adapters on all linear layers. For merged
versions and for adapters alone the script measures: the bytes of a version, the seconds in which the trainer makes it
(snapshot with its sha256), the seconds in which vLLM fetches and loads it from its folder, for how many of these it
does not generate, and tokens per second afterwards, in float32. vLLM uses adapters in two ways: merged on arrival (the
default on CPUs), and kept separate from the model. Results are medians of the rounds; all ways take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rft.config import Config
from rft.lora.adapter import Adapter
from rft.model_files.model_folder import companion_files
from rft.policy.base import Sampling
from rft.training.engines.torch_engine import TorchEngine
from rft.weights.transport import NewVersion
from rft.weights.version_folders import write_version

WAYS = {
    "merged model": ("model", None),
    "adapters, merged on arrival": ("adapters", True),
    "adapters kept separate": ("adapters", False),
}
"""``weights.content`` and ``policy.vllm.merge_adapters``"""
VOCABULARY = 49152


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"<{n}>": n for n in range(8)}, unk_token="<0>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>").save_pretrained(folder)
    return folder


def configuration(model: Path, content: str, merge: bool | None, rank: int) -> Config:
    vllm = {"max_model_len": 512, "merge_adapters": merge}
    return Config.model_validate(
        {
            "policy": {"model": str(model), "engine": "vllm", "max_batch": 64, "vllm": vllm},
            "trainer": {"lora": {"rank": rank, "alpha": 2 * rank}},
            "weights": {"content": content},
        }
    )


class Side:
    """A trainer's engine, and a vLLM engine that loads its versions."""

    def __init__(self, model: Path, root: Path, way: str, rank: int) -> None:
        from rft.policy import open_policy

        config = configuration(model, *WAYS[way], rank)
        self.root = root / way
        self.companions = companion_files(model)
        self.engine = TorchEngine(model, config)
        # Random values, as if the adapters had been trained.
        for name, parameter in self.engine.model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.02)
        self.policy: Any = open_policy(config)
        self.version = 0

    def round(self, sequences: int, tokens: int) -> dict[str, float]:
        self.version += 1
        began = time.perf_counter()
        weights = self.engine.serialized()
        snapshot = time.perf_counter() - began
        companions = self.companions
        if adapter := Adapter.from_metadata(weights.metadata):
            companions = adapter.companions(companions)
        new = NewVersion("m", self.version, 0, weights)
        event = write_version(new, companions, self.root, keep_versions=2)
        before = dict(self.policy.stats)
        self.policy.update_weights(self.root / event.uri, self.version)
        after = self.policy.stats
        return {
            "MB": len(weights.data) / 1e6,
            "snapshot, s": snapshot,
            "fetch and load, s": after["resync_s"] - before["resync_s"],
            "pause of generation, s": after["pause_s"] - before["pause_s"],
            "tokens/s": self.generate(sequences, tokens),
        }

    def generate(self, sequences: int, tokens: int) -> float:
        async def all_of_them() -> float:
            began = time.perf_counter()
            calls = (self.policy.generate([5, 6, 7, seed], Sampling(tokens, seed=seed)) for seed in range(sequences))
            written = await asyncio.gather(*calls)
            return sum(len(one.tokens) for one in written) / (time.perf_counter() - began)

        return asyncio.run(all_of_them())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder, "model"))
        sides = {way: Side(model, Path(folder), way, options.rank) for way in WAYS}
        try:
            for number in range(options.rounds + 1):
                for way, side in sides.items():
                    for name, value in side.round(options.sequences, options.tokens).items():
                        if number:  # the first warms up
                            found[way][name].append(value)
        finally:
            for side in sides.values():
                side.policy.close()
    print(f"\nrank {options.rank}, {options.rounds} rounds, {options.sequences} sequences of {options.tokens} tokens\n")
    print(f"| | {' | '.join(WAYS)} |\n| --- | --- | --- | --- |")
    for name in found["merged model"]:
        cells = (f"{statistics.median(found[way][name]):,.3f}" for way in WAYS)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
