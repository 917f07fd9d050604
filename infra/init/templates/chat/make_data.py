"""Makes the small model that this project begins with, in seconds. With a model of your own you do not need this file.

It imitates conversations until it gets about a third of other names right: a policy that is never right earns no reward
to learn from.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from greetings import tasks

from rft.model_files.character_model import END, Parts, imitate, make_tokenizer, new_model, save_model

FOLDER = Path("data/model")
USER, ASSISTANT = "<user>", "<assistant>"
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""The chat template. A real model's tokenizer brings its own."""


def examples() -> Iterator[Parts]:
    """Yield conversations as the template writes them. Only the assistant's part is learned."""
    for task in tasks(seed=1, size=100_000):
        yield [(f"{USER}{task['question']}{END}{ASSISTANT}", False), (f"{task['answer']}{END}", True)]


if __name__ == "__main__":
    tokenizer = make_tokenizer(string.ascii_lowercase + " ", marks=(USER, ASSISTANT), chat_template=TEMPLATE)
    model = new_model(tokenizer)
    steps, share = imitate(model, tokenizer, examples(), enough=0.3)
    save_model(model, tokenizer, FOLDER)
    print(f"{FOLDER}: {steps} supervised steps, {share:.0%} of other names are right")
