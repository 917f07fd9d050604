"""Makes what a run in stages begins with: a model of random weights, and a file of demonstrations for it to imitate.

python examples/stages/make_data.py runs/stages-data
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

from transformers.utils import logging

from rft.config_sources import load_config
from rft.tasks.splits import open_sources

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES / "quickstart"))

from make_model import batches, make_tokenizer, new_model  # noqa: E402 (found by the line above)

DEMONSTRATIONS = 4800


def write_model(folder: Path, seed: int = 0) -> None:
    """The quickstart's model before its warm start, in Hugging Face layout."""
    logging.disable_progress_bar()
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    new_model(tokenizer, seed).save_pretrained(folder)


def write_demonstrations(path: Path, count: int) -> None:
    """JSON lines ``{"word": …, "response": …}`` of training words, each once; held-out words are not among them."""
    train = open_sources(load_config(EXAMPLES / "stages" / "stages.toml")).train
    words = {item.metadata["word"]: item.answer for batch in islice(batches(train), 110) for item in batch}
    with path.open("w", encoding="utf-8") as file:
        for word, answer in islice(words.items(), count):
            file.write(json.dumps({"word": word, "response": answer}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/stages-data"))
    parser.add_argument("--demonstrations", type=int, default=DEMONSTRATIONS, help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_model(arguments.folder / "model")
    write_demonstrations(arguments.folder / "demonstrations.jsonl", arguments.demonstrations)
    print(f"Model and demonstrations are in {arguments.folder}")


if __name__ == "__main__":
    main()
