"""Makes the small model that this project begins with, in seconds. With a model of your own you do not need this file.

It imitates the agent's conversations until it has both words right in about a fifth of them: a policy that is never
right earns no reward to learn from.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from my_agent import tasks

from rft.model_files.character_model import END, Parts, imitate, make_tokenizer, new_model, save_model

FOLDER = Path("data/model")
USER, ASSISTANT = "<user>", "<assistant>"
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""The chat template. A real model's tokenizer brings its own."""


def examples() -> Iterator[Parts]:
    """Yield conversations as the template writes them. Only the assistant's parts are learned."""
    for task in tasks(seed=1, size=100_000):
        parts: list[tuple[str, bool]] = []
        for word in task["question"].split():
            parts += [(f"{USER}{word}{END}{ASSISTANT}", False), (f"{word[::-1]}{END}", True)]
        yield parts


if __name__ == "__main__":
    tokenizer = make_tokenizer(string.ascii_lowercase, marks=(USER, ASSISTANT), chat_template=TEMPLATE)
    model = new_model(tokenizer)
    steps, share = imitate(model, tokenizer, examples(), enough=0.2)
    save_model(model, tokenizer, FOLDER)
    print(f"{FOLDER}: {steps} supervised steps, both words are right in {share:.0%} of other tasks")
