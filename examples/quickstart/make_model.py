"""Makes the quickstart's model after an imitation like its first stage, in one process and in seconds. Other examples
begin with this model.

Reinforcement needs a policy that is right now and then. So the model imitates reversed words of the training split
until it spells about a third of other training words right. It never sees held-out words.

    python examples/quickstart/make_model.py runs/quickstart-model
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from rft.config_sources import load_config
from rft.tasks.base import TaskItem, TaskSource
from rft.tasks.splits import open_sources

CONFIG = Path(__file__).with_name("quickstart.toml")
CHARACTERS = string.ascii_letters + ">"
PAD, EOS = "<pad>", "<eos>"
MAX_STEPS = 200
WORDS_PER_STEP = 64
LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
ENOUGH = 0.33
"""Imitation ends when this share of the probe words is spelled right. Reinforcement does the rest."""
PROBES = 512
STEPS_BETWEEN_PROBES = 2
IGNORED = -100
"""Label of a token that does not enter the loss, by PyTorch's convention."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token for each character."""
    vocabulary = {token: number for number, token in enumerate([PAD, EOS, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Make a model with about 0.34 million random parameters: 2 layers of width 128."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=8,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_batch(items: list[TaskItem], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts with their answers, right-padded, and labels that ignore the prompts; both int64 [B, T]."""
    prompts = [tokenizer.encode(item.prompt) for item in items]
    answers = [[*tokenizer.encode(item.answer or ""), tokenizer.eos_token_id] for item in items]
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    tokens = torch.full((len(items), length), tokenizer.pad_token_id)
    labels = torch.full((len(items), length), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return tokens, labels


def batches(tasks: TaskSource) -> Iterator[list[TaskItem]]:
    """Yield endless batches of training tasks. Half of each batch are words with a capital letter.

    Only one word in six has a capital, so without this each capital letter would be too rare in these few steps.
    """
    words = (tasks[number] for number in count(PROBES))
    names = (item for item in (tasks[number] for number in count(100_000)) if item.prompt != item.prompt.lower())
    while True:
        yield [*islice(words, WORDS_PER_STEP // 2), *islice(names, WORDS_PER_STEP // 2)]


@torch.no_grad()
def spelled_right(model: Qwen3ForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of rows that greedy decoding would write exactly as labeled."""
    predicted = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(dim=-1)
    right = (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
    return float(right.all(dim=-1).float().mean())


def warm_start(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: TaskSource, max_steps: int, progress: Progress
) -> None:
    """Take supervised steps on ``tasks``: ``max_steps`` at most, until the share ``ENOUGH`` of probe words is right."""
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    probe = make_batch([tasks[number] for number in range(PROBES)], tokenizer)
    bar = progress.add_task("supervised steps", total=ENOUGH)
    for step, items in enumerate(islice(batches(tasks), max_steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS)
        tokens, labels = make_batch(items, tokenizer)
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % STEPS_BETWEEN_PROBES == 0:
            right = spelled_right(model, *probe)
            progress.update(bar, completed=right, description=f"{step} supervised steps: {right:.0%} spelled right")
            if right >= ENOUGH:
                break


def make_model(folder: Path, steps: int = MAX_STEPS, seed: int | None = None) -> None:
    """Write config, tokenizer and weights to ``folder``, after at most ``steps`` supervised steps.

    The default of ``seed`` is that of the run.
    """
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    config = load_config(CONFIG)
    tokenizer = make_tokenizer()
    model = new_model(tokenizer, config.run.seed if seed is None else seed)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        warm_start(model, tokenizer, open_sources(config).train, steps, progress)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/quickstart-model"))
    parser.add_argument("--steps", type=int, default=MAX_STEPS, help="most supervised steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the weights (default: run.seed of quickstart.toml)")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.steps, arguments.seed)
    print(f"The model is in {arguments.folder}")


if __name__ == "__main__":
    main()
