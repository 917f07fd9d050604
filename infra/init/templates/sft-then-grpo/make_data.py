"""Makes a small model with random weights, and the demonstrations that it imitates first.

With a model and demonstrations of your own you do not need this file.
"""

from __future__ import annotations

import json
from pathlib import Path

from spelling import LETTERS

from rft.config_sources import load_config
from rft.model_files.character_model import make_tokenizer, new_model, save_model
from rft.tasks import open_sources

DATA = Path("data")
DEMONSTRATIONS = 3000

if __name__ == "__main__":
    tokenizer = make_tokenizer(LETTERS + ">")
    save_model(new_model(tokenizer), tokenizer, DATA / "model")
    # From the training tasks only: those of the evaluation must not be imitated either.
    train = open_sources(load_config(Path("run.toml"))).train
    rows = {train[number].question: train[number].answer for number in range(DEMONSTRATIONS)}
    with (DATA / "demonstrations.jsonl").open("w", encoding="utf-8") as file:
        for word, answer in rows.items():
            file.write(json.dumps({"word": word, "response": answer}) + "\n")
    print(f"{DATA}: a model with random weights, {len(rows)} demonstrations")
