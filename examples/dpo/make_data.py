"""Makes pairs of answers: a word spelled backwards, and the same with two adjacent letters exchanged.

python examples/dpo/make_data.py runs/dpo-data/preferences.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rft.config_sources import load_config
from rft.tasks.splits import open_sources

EXAMPLES = Path(__file__).parents[1]
sys.path.append(str(EXAMPLES / "quickstart"))

from make_model import batches  # noqa: E402 (the line above makes it importable)

PAIRS = 3000


def exchange_letters(answer: str, rng: random.Random) -> str:
    """Exchange two adjacent letters that differ. Return the answer unchanged if there are none."""
    indices = [index for index in range(len(answer) - 1) if answer[index] != answer[index + 1]]
    if not indices:
        return answer
    index = rng.choice(indices)
    return answer[:index] + answer[index + 1] + answer[index] + answer[index + 2 :]


def pairs() -> Iterator[dict[str, str]]:
    """Yield a pair for each training word. The held-out words of the run are not among them."""
    train, rng, seen = open_sources(load_config(EXAMPLES / "dpo" / "dpo.toml")).train, random.Random(0), set()
    for item in (item for batch in batches(train) for item in batch):
        word, answer = item.metadata["word"], item.answer or ""
        worse = exchange_letters(answer, rng)
        if word not in seen and worse != answer:
            seen.add(word)
            yield {"word": word, "chosen": answer, "rejected": worse}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=Path("runs/dpo-data/preferences.jsonl"))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    with arguments.file.open("w", encoding="utf-8") as file:
        for pair in islice(pairs(), arguments.pairs):
            file.write(json.dumps(pair) + "\n")
    print(f"{arguments.pairs} pairs are in {arguments.file}")


if __name__ == "__main__":
    main()
