"""Compares the explorer with vLLM to vLLM's own offline `generate`: tokens per second, and how full the batch is.

python benchmarks/explorers.py [--groups 32] [--tokens 64] [--rounds 9]      (needs `make vllm`)

The explorer's rollout pool, policy and publishing are the real ones, on an embedded broker. Both sides take turns. They
generate the same number of tokens for the same prompts, on engines with the same settings. The model is random and
never ends a sequence. For the long tail, one length per group is drawn from a log-normal distribution and cut at 16
times the median.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from infra.broker import open_broker
from producers.explorer.backlog import Delivery
from producers.explorer.pool import RolloutPool
from rft.config import Config
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from rft.policy.vllm.policy import VllmPolicy
from rft.workflows.base import find_workflow
from schemas.events import Experience, Task

ENGINE = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Environment of both engines. The policy keeps variables that are set."""
CHARACTERS = "abcdefghijklmnopqrstuvwxyz>"
SAMPLES = 8
POLL_S = 0.02
"""Seconds between two looks at how full the batch is."""


def make_model(folder: Path, width: int, layers: int) -> None:
    torch.manual_seed(0)
    vocabulary = {token: number for number, token in enumerate(["<pad>", *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>").save_pretrained(folder)
    shape = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, head_dim=32, max_position_embeddings=4096,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForCausalLM(shape).save_pretrained(folder)


def tasks_of(lengths: list[int], rng: np.random.Generator) -> list[Task]:
    return [
        Task(
            f"train-{number:08d}", number, "train", "benchmark",
            "".join(rng.choice(list(CHARACTERS), 24)), None, SAMPLES, length, 1.0, 1.0, number, 0, 0,
        )
        for number, length in enumerate(lengths)
    ]  # fmt: skip


class Explorer:
    """An explorer outside a consumer group. It is given its tasks directly."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.policy = VllmPolicy(config.policy)
        self.writer = EventWriter(config, "benchmark")
        self.full: list[bool] = []

    async def _roll_out(self, tasks: list[Task]) -> None:
        def publish(_: Delivery, experience: Experience) -> None:
            self.writer.send("experiences", experience)

        pool = RolloutPool(
            self.config.rollout,
            self.policy,
            find_workflow("single_turn"),
            source="benchmark",
            model="policy",
            publish=publish,
        )
        pool.set_version(0)
        pool.add(Delivery(0, task.number, task) for task in tasks)
        while pool.rollouts < len(tasks) * SAMPLES:
            if pool.error or pool.failed:
                raise SystemExit(f"{pool.failed} rollouts failed: {pool.error}")
            self.full.append(self.policy.stats["running"] >= self.config.policy.max_batch)
            await asyncio.sleep(POLL_S)
        self.writer.flush(30)

    def seconds(self, tasks: list[Task]) -> float:
        self.full.clear()
        began = time.monotonic()
        asyncio.run(self._roll_out(tasks))
        return time.monotonic() - began

    def close(self) -> None:
        self.policy.close()
        self.writer.close(timeout_s=5)


class Offline:
    """vLLM used as in its documentation."""

    def __init__(self, config: Config) -> None:
        from vllm import LLM

        self.encode: Any = PreTrainedTokenizerFast.from_pretrained(config.policy.model).encode
        self.llm = LLM(
            model=config.policy.model, skip_tokenizer_init=True, dtype="float32", enforce_eager=True,
            max_num_seqs=config.policy.max_batch, logprobs_mode="processed_logprobs", disable_log_stats=True,
        )  # fmt: skip

    def seconds(self, tasks: list[Task]) -> float:
        from vllm import SamplingParams

        began = time.monotonic()
        prompts, parameters = [], []
        for task in tasks:
            for sample in range(SAMPLES):
                prompts.append({"prompt_token_ids": self.encode(task.prompt)})
                parameters.append(
                    SamplingParams(max_tokens=task.max_tokens, seed=task.seed + sample, logprobs=0, detokenize=False)
                )
        written = self.llm.generate(prompts, parameters, use_tqdm=False)
        assert all(len(one.outputs[0].token_ids) == p.max_tokens for one, p in zip(written, parameters, strict=True))
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=32, help=f"prompts, each {SAMPLES} times (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each rollout; median of the long tail")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64, help="sequences generated at once")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    os.environ.update(ENGINE)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="rft-explorers-") as name:
        folder = Path(name)
        make_model(folder / "model", options.width, options.layers)
        broker = open_broker(Config(), folder)
        assert broker is not None
        config = Config.model_validate(
            {
                "broker": {"kind": "external", "bootstrap_servers": broker.start()},
                "policy": {"engine": "vllm", "model": str(folder / "model"), "max_batch": options.batch},
                "rollout": {"max_in_flight": 4 * options.batch, "deadline_s": 3600},
            }
        )
        ensure_topics(config)
        offline = Offline(config)
        explorer = Explorer(config)
        try:
            equal = [options.tokens] * options.groups
            tail = np.minimum(rng.lognormal(np.log(options.tokens), 1.0, options.groups).astype(int) + 1, 16 * equal[0])
            for title, lengths in (("equal lengths", equal), ("long tail", [int(length) for length in tail])):
                compare(title, lengths, offline, explorer, options.rounds, options.batch, rng)
        finally:
            explorer.close()
            broker.stop()


def compare(
    title: str,
    lengths: list[int],
    offline: Offline,
    explorer: Explorer,
    rounds: int,
    batch: int,
    rng: np.random.Generator,
) -> None:
    tokens = sum(lengths) * SAMPLES
    warm = tasks_of([4] * 4, rng)
    offline.seconds(warm)
    explorer.seconds(warm)
    ratios, full = [], []
    for number in range(rounds):
        tasks = tasks_of(lengths, rng)
        if number % 2:
            ours, theirs = explorer.seconds(tasks), offline.seconds(tasks)
        else:
            theirs, ours = offline.seconds(tasks), explorer.seconds(tasks)
        ratios.append(theirs / ours)
        full.append(statistics.mean(explorer.full))
        print(
            f"{title:14} {tokens:7} tokens   offline {tokens / theirs:8.0f}/s   explorer {tokens / ours:8.0f}/s   "
            f"ratio {theirs / ours:.3f}   batch full {full[-1]:.0%} of the time",
            flush=True,
        )
    rows = [lengths[first // SAMPLES] for first in range(len(lengths) * SAMPLES)]
    waves = [max(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    print(
        f"{title:14} median ratio {statistics.median(ratios):.3f}, batch full {statistics.median(full):.0%}; "
        f"batches that wait for their longest would be {sum(rows) / (batch * sum(waves)):.0%} full",
        flush=True,
    )


if __name__ == "__main__":
    main()
