"""Makes a character-level model with a chat template that spells some words backwards, in seconds.

It is the quickstart's model. It imitates the agent's conversations about training words until it has both words right
in about one of eight. Reinforcement does the rest.

    python examples/agent/make_chat_model.py runs/agent-model
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "quickstart")]

from make_model import IGNORED, make_tokenizer, new_model, spelled_right  # noqa: E402
from spelling_agent import tasks  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{{ '>' if message.role == 'user' else '<eos>' }}{% endfor %}"
)
MAX_STEPS = 300
PAIRS_PER_STEP = 32
LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
ENOUGH = 0.12
PROBES = 256


def make_batch(pairs, tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return conversations about pairs of words, right-padded, and labels that ignore what the agent says; [B, T]."""
    rows, labels = [], []
    for pair in pairs:
        row, label = [], []
        for word in pair["question"].split():
            asked, answer = tokenizer.encode(word + ">"), [*tokenizer.encode(word[::-1]), tokenizer.eos_token_id]
            row += asked + answer
            label += [IGNORED] * len(asked) + answer
        rows.append(torch.tensor(row))
        labels.append(torch.tensor(label))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(labels, batch_first=True, padding_value=IGNORED)


def make_model(folder: Path, steps: int = MAX_STEPS, seed: int = 0) -> None:
    """Write config, tokenizer and weights to ``folder``, after at most ``steps`` supervised steps."""
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model = new_model(tokenizer, seed)
    pairs = iter(tasks(seed))
    probe = make_batch(list(islice(pairs, PROBES)), tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS)
        tokens, labels = make_batch(list(islice(pairs, PAIRS_PER_STEP)), tokenizer)
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = spelled_right(model, *probe)
        if right >= ENOUGH:
            break
    print(f"{step} supervised steps: both words right in {right:.0%} of the probes")
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/agent-model"))
    parser.add_argument("--steps", type=int, default=MAX_STEPS, help="most supervised steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.steps, arguments.seed)
    print(f"The model is in {arguments.folder}")


if __name__ == "__main__":
    main()
