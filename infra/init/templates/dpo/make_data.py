"""Makes a small model that is right now and then, and pairs of a better and a worse answer.

With a model and pairs of your own you do not need this file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from spelling import LETTERS, worse

from rft.config_sources import load_config
from rft.model_files.character_model import END, Parts, imitate, make_tokenizer, new_model, save_model
from rft.tasks import open_sources

DATA = Path("data")
PAIRS = 3000


def examples(train) -> Iterator[Parts]:
    """Yield what is imitated: training tasks as in run.toml, whose answers are learned."""
    for number in count():
        yield [(train[number].prompt, False), (f"{train[number].answer}{END}", True)]


if __name__ == "__main__":
    # From the training tasks only: those of the evaluation must not be learned.
    train = open_sources(load_config(Path("run.toml"))).train
    tokenizer = make_tokenizer(LETTERS + ">")
    model = new_model(tokenizer)
    steps, share = imitate(model, tokenizer, examples(train), enough=0.4)
    save_model(model, tokenizer, DATA / "model")
    draw = random.Random(0)
    rows = {train[number].question: train[number].answer for number in range(PAIRS)}
    with (DATA / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for word, answer in rows.items():
            file.write(json.dumps({"word": word, "chosen": answer, "rejected": worse(answer, draw)}) + "\n")
    print(f"{DATA}: a model after {steps} supervised steps ({share:.0%} right), {len(rows)} pairs")
