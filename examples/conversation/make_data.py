"""Makes a character-level model with random weights and a chat template, and games of a player who guesses blindly.

python examples/conversation/make_data.py runs/conversation-data
"""

from __future__ import annotations

import argparse
import json
import random
import string
from pathlib import Path

from guess import hint, tasks

from rft.model_files.character_model import make_tokenizer, new_model, save_model

USER, ASSISTANT = "<user>", "<assistant>"
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GAMES = 8000
SEED_OF_GAMES = 1_000_000


def write_model(folder: Path, seed: int) -> None:
    """Write a Qwen3 of about 0.3 million random parameters with its tokenizer, one token for each character."""
    characters = string.ascii_lowercase + "+-?"
    tokenizer = make_tokenizer(characters, marks=(USER, ASSISTANT), chat_template=TEMPLATE)
    save_model(new_model(tokenizer, seed=seed), tokenizer, folder)


def write_games(path: Path, count: int) -> None:
    """Write JSON lines ``{"messages": …}``: games of a player who knows the rules and takes any letter."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for game in tasks(SEED_OF_GAMES, count):
            letters, secret = game["question"], game["answer"]
            first = draw.choice(letters)
            messages = [("user", letters), ("assistant", first)]
            if first != secret:
                messages += [("user", hint(first, secret)), ("assistant", draw.choice(letters))]
            row = {"messages": [{"role": role, "content": content} for role, content in messages]}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/conversation-data"))
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    write_model(arguments.folder / "model", arguments.seed)
    write_games(arguments.folder / "games.jsonl", GAMES)
    print(f"Model and games are in {arguments.folder}")


if __name__ == "__main__":
    main()
