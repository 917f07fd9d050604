"""Makes the small model that this project begins with, in seconds. With a model of your own you do not need this file.

It has random weights at first, and imitates sums until it has about a third of other ones right: a policy that is never
right earns no reward to learn from.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from sums import tasks

from rft.model_files.character_model import END, Parts, imitate, make_tokenizer, new_model, save_model

FOLDER = Path("data/model")


def examples() -> Iterator[Parts]:
    """Yield what is imitated: a prompt as in run.toml, and the answer, which is learned."""
    for task in tasks(seed=1, size=100_000):
        yield [(f"{task['question']}=", False), (f"{task['answer']}{END}", True)]


if __name__ == "__main__":
    tokenizer = make_tokenizer(string.digits + "+-=")
    model = new_model(tokenizer)
    steps, share = imitate(model, tokenizer, examples(), enough=0.3)
    save_model(model, tokenizer, FOLDER)
    print(f"{FOLDER}: {steps} supervised steps, {share:.0%} of other sums are right")
