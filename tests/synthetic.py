"""Makes ``ready`` events without explorers or processors, and a model that trains in milliseconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rft.config import Config
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter
from schemas.events import Experience, Record, ScoredExperience

VOCABULARY = 16


def make_tiny_model(folder: Path, *, hidden: int = 16, seed: int = 0) -> Path:
    """Save a random Qwen3 with its tokenizer in Hugging Face layout."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(VOCABULARY)}, unk_token="<0>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<1>", pad_token="<0>").save_pretrained(folder)
    return folder


def scored(number: int, sample: int, size: int, *, version: int = 0, **changes: object) -> ScoredExperience:
    """Return one sample of the group of task ``number``. These numbers determine its tokens and reward.

    ``changes`` are fields of the ScoredExperience or the Experience.
    """
    group = changes.pop("group_id", f"train-{number:08d}")
    random = np.random.default_rng([number + 1, sample])
    prompt, written = int(random.integers(2, 6)), int(random.integers(1, 7))
    length = prompt + written
    mask = (np.arange(length) >= prompt).astype(np.uint8)
    experience = {
        "experience_id": f"{group}/{sample}",
        "group_id": group,
        "number": number,
        "sample": sample,
        "split": "train",
        "group_size": size,
        "prompt": "p",
        "response": "r",
        "answer": None,
        "created_at": 1,
        "source": "synthetic",
        "model": "policy",
        "tokens": random.integers(0, VOCABULARY, length).astype(np.int32),
        "action_mask": mask,
        "logprobs": (mask * random.uniform(-3.5, -2.0, length)).astype(np.float32),
        "versions": np.where(mask == 1, version, -1).astype(np.int32),
    }
    event = {
        "origin_partition": 0,
        "origin_offset": 0,
        "verdict": "train",
        "cause": None,
        "reward": float(random.integers(0, 2)),
        "rewards": {},
        "priority": 0.0,
        "release_id": hashlib.sha256(f"{group}:{size}".encode()).hexdigest()[:16],
        "release_size": size,
        "scored_at": 1,
    }
    event |= {name: changes.pop(name) for name in list(changes) if name in event}
    experience |= changes
    return ScoredExperience(experience=Experience(**experience), **event)


def publish(config: Config, events: list[ScoredExperience]) -> None:
    """Publish events to ``ready`` as a processor would."""
    ensure_topics(config)
    with EventWriter(config, "synthetic") as writer:
        for event in events:
            writer.send("ready", event)


def read_all(config: Config, entity: str) -> list[Record]:
    """Read every record of a topic."""
    records = []
    with EventReader(config, "test", [entity]) as reader:
        ends = reader.end_offsets()
        while not reader.caught_up(ends):
            records += [event.record() for event in reader.poll(1.0)]
    return records
