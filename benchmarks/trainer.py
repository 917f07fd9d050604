"""Compares a step of the torch engine with a bare loop of the same mathematics, and packed with padded micro-batches.

    python benchmarks/trainer.py

The bare loop has its micro-batches, advantages and weights ready and collects no metrics. Both take turns, so that
other load on the machine affects them alike. Memory is the peak of a process that takes two steps on long-tailed
lengths, minus what it held before the first.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rft.config import Config
from rft.training.batch import MicroBatch, StepBatch
from rft.training.engines.torch_engine import TorchEngine
from rft.training.memory import estimate_memory, model_shape
from rft.training.micro_batches import make_micro_batches
from rft.training.sample import Payload

VOCABULARY, GROUPS, SIZE = 64, 32, 4


def make_model(folder: Path, vocabulary: int) -> Path:
    """Write a model of the quickstart's shape with random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=8,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def make_batch(lengths: np.ndarray, vocabulary: int) -> StepBatch:
    """Make sequences of these lengths with random rewards. The policy wrote the second half of each."""
    numbers = np.random.default_rng(0)
    payloads = []
    for length in lengths.tolist():
        mask = (np.arange(length) >= length // 2).astype(np.uint8)
        logprobs = (mask * np.float32(-np.log(vocabulary))).astype(np.float32)
        tokens = numbers.integers(0, vocabulary, length).astype(np.int32)
        payloads.append(Payload(tokens, mask, logprobs, np.where(mask == 1, 0, -1).astype(np.int32)))
    size = len(payloads)
    return StepBatch(
        payloads,
        numbers.integers(0, 2, size).astype(np.float64),
        np.arange(size) // SIZE,
        ("rollout",) * size,
        np.ones(size),
        np.ones(size),
        np.zeros(size, dtype=bool),
    )


class BareLoop:
    """GRPO's loss on ready padded micro-batches."""

    def __init__(self, folder: Path, batch: StepBatch) -> None:
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        rewards = batch.rewards.reshape(-1, SIZE)
        spread = rewards.std(axis=1, ddof=1, keepdims=True) + 1e-6
        advantages = ((rewards - rewards.mean(axis=1, keepdims=True)) / spread).ravel()
        learns = [[i] for i in range(len(batch)) if advantages[i] != 0]
        self.micro_batches = make_micro_batches(batch, 16384, learns)
        per_token = torch.from_numpy(np.repeat(advantages, batch.counts)).float()
        self.advantages = [per_token[one.token_indices] for one in self.micro_batches]
        self.tokens = int(batch.counts.sum())

    def step(self) -> None:
        for micro_batch, advantages in zip(self.micro_batches, self.advantages, strict=True):
            self.loss(micro_batch, advantages).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, batch: MicroBatch, advantages: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=batch.inputs, use_cache=False, logits_to_keep=batch.columns).logits
        picked = torch.log_softmax(logits.flatten(0, 1).index_select(0, batch.logit_indices), dim=-1)
        logprobs = picked.gather(-1, batch.targets[:, None]).squeeze(-1)
        ratio = torch.exp(logprobs - batch.sampler_logprobs)
        gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        return -gain.sum() / self.tokens


def compare(folder: Path, steps: int) -> None:
    lengths = np.random.default_rng(1).integers(8, 13, GROUPS * SIZE)
    batch = make_batch(lengths, VOCABULARY)
    engine, padded = (
        TorchEngine(folder, Config.model_validate({"policy": {"model": str(folder)}, "trainer": {"packing": packing}}))
        for packing in ("auto", "off")
    )
    bare = BareLoop(folder, batch)
    seconds: dict[str, list[float]] = {"engine": [], "padded": [], "bare": []}
    for number in range(1, steps + 4):
        for name, step in (
            ("bare", bare.step),
            ("engine", lambda n=number: engine.step(n, batch, version=0)),
            ("padded", lambda n=number: padded.step(n, batch, version=0)),
        ):
            started = time.process_time()
            step()
            if number > 3:
                seconds[name].append(time.process_time() - started)
    ours, unpacked, theirs = (statistics.median(seconds[name]) for name in seconds)
    print(f"processor time of a step, {len(batch)} samples, median of {steps}, in turns:")
    print(f"  bare loop {theirs * 1e3:6.1f} ms\n  engine    {ours * 1e3:6.1f} ms   {ours / theirs:.3f} times")
    print(f"  packing off {unpacked * 1e3:4.1f} ms   {unpacked / theirs:.3f} times")
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for number in range(20):
        engine.step(number + 1, batch, version=0)
    profile.disable()
    print("where an engine's step goes (20 steps, cumulative):")
    stats = pstats.Stats(profile)
    chosen = (
        "begin",
        "updates",
        "make_micro_batches",
        "token_logprobs",
        "add",
        "metrics",
        "_update",
        "backward",
        "_run",
    )
    total = stats.total_tt
    rows = [
        (v[3], k[2], Path(k[0]).name)
        for k, v in stats.stats.items()
        if k[2] in chosen and "site-packages/tr" not in k[0]
    ]
    for cumulative, name, file in sorted(rows, reverse=True)[:12]:
        print(f"  {cumulative / total:6.1%}  {file}:{name}")


def peak(folder: Path, packing: str, vocabulary: int) -> None:
    """Print the MiB that two steps take in this process."""
    lengths = np.clip(np.random.default_rng(2).lognormal(4.3, 1.0, GROUPS * 2), 8, 2048).astype(int)
    batch = make_batch(lengths, vocabulary)
    settings = {"policy": {"model": str(folder)}, "trainer": {"packing": packing, "micro_batch_tokens": 4096}}
    engine = TorchEngine(folder, Config.model_validate(settings))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for number in (1, 2):
        engine.step(number, batch, version=0)
    seconds = (time.process_time() - started) / 2
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    needed = estimate_memory(model_shape(engine.model, engine.config), engine.config, reference=False)
    guess = (needed.gradients + needed.optimizer + needed.activations) / 2**20
    print(f"  {packing:4} {used:8.0f} MiB  {seconds:6.2f} s of processor  (estimate {guess:.0f} MiB)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--peak", nargs=3, metavar=("FOLDER", "PACKING", "VOCABULARY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        folder, packing, vocabulary = arguments.peak
        peak(Path(folder), packing, int(vocabulary))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(make_model(Path(name) / "small", VOCABULARY), arguments.steps)
        large = make_model(Path(name) / "large", 8192)
        print("peak memory of a step, lengths of a long tail (log-normal, median 74, to 2,048), 4,096 tokens at once:")
        for packing in ("off", "on", "auto"):
            subprocess.run([sys.executable, __file__, "--peak", str(large), packing, "8192"], check=True)


if __name__ == "__main__":
    main()
