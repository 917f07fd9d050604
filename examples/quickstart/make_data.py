"""Makes the input of the quickstart: a model with random weights, and a file of demonstrations for it to imitate.

python examples/quickstart/make_data.py runs/quickstart-data
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from make_model import CONFIG, batches, make_tokenizer

from rft.config_sources import load_config
from rft.model_files.character_model import new_model, save_model
from rft.tasks.splits import open_sources

DEMONSTRATIONS = 4800


def write_model(folder: Path, seed: int) -> None:
    """Write a character-level Qwen3 and its tokenizer, in Hugging Face layout."""
    tokenizer = make_tokenizer()
    save_model(new_model(tokenizer, seed=seed), tokenizer, folder)


def write_demonstrations(path: Path, count: int) -> None:
    """Write JSON lines ``{"word": …, "response": …}``, one for each training word and none for held-out words."""
    train = open_sources(load_config(CONFIG)).train
    words = {item.metadata["word"]: item.answer for batch in islice(batches(train), 110) for item in batch}
    with path.open("w", encoding="utf-8") as file:
        for word, answer in islice(words.items(), count):
            file.write(json.dumps({"word": word, "response": answer}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/quickstart-data"))
    parser.add_argument("--seed", type=int, help="seed of the weights (default: run.seed of quickstart.toml)")
    parser.add_argument("--demonstrations", type=int, default=DEMONSTRATIONS, help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seed = load_config(CONFIG).run.seed if arguments.seed is None else arguments.seed
    write_model(arguments.folder / "model", seed)
    write_demonstrations(arguments.folder / "demonstrations.jsonl", arguments.demonstrations)
    print(f"Model and demonstrations are in {arguments.folder}")


if __name__ == "__main__":
    main()
