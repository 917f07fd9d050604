"""Makes the input of the example: a model that has imitated some calls of tools, and the tasks.

The model is a character-level Qwen3 with random weights. It imitates conversations in which the answer comes from a
tool, until it solves about a third of other problems. Problems of the run's held-out set are not among them.

    python examples/tools/make_data.py runs/tools-data
"""

from __future__ import annotations

import argparse
import json
import random
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

CHARACTERS = string.ascii_letters + string.digits + " +*=(),[]_:.'\"{}?<>!-\n/"
PAD, EOS, USER, MODEL, TOOL = "<pad>", "<end>", "<user>", "<model>", "<tool>"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'user': '<user>', 'assistant': '<model>', 'tool': '<tool>'}[message['role']] + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
    "{# The model knows its tools by heart: it is not told which tools there are. #}"
)
"""The chat template: one token begins each message, and one ends the model's turns."""
OPERATORS = {"+": "add", "*": "multiply"}
TASKS = 4000
STEPS = 400
PROBLEMS_PER_STEP = 64
LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
ENOUGH = 0.3
"""Imitation ends when this share of the probes is solved. Reinforcement does the rest."""
PROBES = 256
STEPS_BETWEEN_PROBES = 2
IGNORED = -100
"""Label of a token that does not enter the loss, by PyTorch's convention."""
Problem = tuple[int, str, int]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token for each character, and one for each mark of the template."""
    special = [PAD, EOS, USER, MODEL, TOOL]
    vocabulary = {token: number for number, token in enumerate([*special, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS, additional_special_tokens=[USER, MODEL, TOOL]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


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
            max_position_embeddings=96,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def problems(seed: int) -> list[Problem]:
    """Return all problems with numbers of two digits, in a random order."""
    numbers = range(10, 100)
    listed = [(a, operator, b) for operator in OPERATORS for a in numbers for b in numbers]
    random.Random(seed).shuffle(listed)
    return listed


def answer_of(problem: Problem) -> str:
    a, operator, b = problem
    return str(a + b if operator == "+" else a * b)


def conversation(problem: Problem) -> list[tuple[str, bool]]:
    """Return the parts of a conversation that ends with the answer, and whether the model writes each of them."""
    a, operator, b = problem
    return [
        (f"{USER}{a}{operator}{b}{MODEL}", False),
        (f"[{OPERATORS[operator]}(a={a}, b={b})]{EOS}", True),
        (f"{TOOL}{answer_of(problem)}{MODEL}", False),
        (f"{answer_of(problem)}{EOS}", True),
    ]


def make_batch(listed: list[Problem], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Return conversations, right-padded, and labels that ignore what the model does not write; both int64 [B, T]."""
    rows = []
    for problem in listed:
        parts = [(tokenizer.encode(text), learned) for text, learned in conversation(problem)]
        tokens = [token for part, _ in parts for token in part]
        labels = [token if learned else IGNORED for part, learned in parts for token in part]
        rows.append((tokens, labels))
    length = max(len(tokens) for tokens, _ in rows)
    padded = [
        [row + [fill] * (length - len(row)) for row in each]
        for each, fill in zip(zip(*rows, strict=True), (tokenizer.pad_token_id, IGNORED), strict=True)
    ]
    return torch.tensor(padded[0]), torch.tensor(padded[1])


@torch.no_grad()
def solved(model: Qwen3ForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of conversations that greedy decoding would write exactly as labeled."""
    predicted = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(dim=-1)
    right = (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
    return float(right.all(dim=-1).float().mean())


def imitate(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, shown: list[Problem], steps: int) -> float:
    """Take supervised steps on ``shown``, until the share ``ENOUGH`` of its last problems is solved. Return the share.

    The last problems are probes, and are not learned.
    """
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    probe = make_batch(shown[-PROBES:], tokenizer)
    rng, share = random.Random(0), 0.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS)
        tokens, labels = make_batch(rng.sample(shown[:-PROBES], PROBLEMS_PER_STEP), tokenizer)
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % STEPS_BETWEEN_PROBES == 0 and (share := solved(model, *probe)) >= ENOUGH:
            print(f"{step} supervised steps: {share:.0%} of other problems solved")
            break
    return share


def make_data(folder: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Write the model to ``folder/model`` and the tasks to ``folder/tasks.jsonl``. They share no problem."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = new_model(tokenizer, seed)
    listed = problems(seed)
    imitate(model, tokenizer, listed[TASKS:], steps)
    tokenizer.save_pretrained(folder / "model")
    model.save_pretrained(folder / "model")
    with (folder / "tasks.jsonl").open("w", encoding="utf-8") as file:
        for a, operator, b in listed[:TASKS]:
            file.write(json.dumps({"question": f"{a}{operator}{b}", "answer": answer_of((a, operator, b))}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/tools-data"))
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and problems (default: %(default)s)")
    arguments = parser.parse_args()
    make_data(arguments.folder, arguments.seed)
    print(f"Model and tasks are in {arguments.folder}")


if __name__ == "__main__":
    main()
