"""Makes the input of the example: a model that has imitated some calls of tools, and the tasks.

The model is a character-level Qwen3 with random weights. It imitates conversations in which the answer comes from a
tool, until it solves about a third of other problems. Problems of the run's held-out set are not among them.

    python examples/tools/make_data.py runs/tools-data
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Iterator
from pathlib import Path

from rft.model_files.character_model import END, Parts, imitate, make_tokenizer, new_model, save_model

CHARACTERS = string.ascii_letters + string.digits + " +*=(),[]_:.'\"{}?<>!-\n/"
USER, MODEL, TOOL = "<user>", "<model>", "<tool>"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'user': '<user>', 'assistant': '<model>', 'tool': '<tool>'}[message['role']] + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
    "{# The model knows its tools by heart: it is not told which tools there are. #}"
)
"""The chat template: one token begins each message, and one ends the model's turns."""
OPERATORS = {"+": "add", "*": "multiply"}
TASKS = 4000
STEPS = 400
PROBLEMS_PER_STEP = 64
ENOUGH = 0.3
"""Imitation ends when this share of the probes is solved. Reinforcement does the rest."""
PROBES = 256
Problem = tuple[int, str, int]


def problems(seed: int) -> list[Problem]:
    """Return all problems with numbers of two digits, in a random order."""
    numbers = range(10, 100)
    listed = [(a, operator, b) for operator in OPERATORS for a in numbers for b in numbers]
    random.Random(seed).shuffle(listed)
    return listed


def answer_of(problem: Problem) -> str:
    a, operator, b = problem
    return str(a + b if operator == "+" else a * b)


def conversation(problem: Problem) -> Parts:
    """Return the parts of a conversation that ends with the answer, and whether the model writes each of them."""
    a, operator, b = problem
    return [
        (f"{USER}{a}{operator}{b}{MODEL}", False),
        (f"[{OPERATORS[operator]}(a={a}, b={b})]{END}", True),
        (f"{TOOL}{answer_of(problem)}{MODEL}", False),
        (f"{answer_of(problem)}{END}", True),
    ]


def shown_problems(shown: list[Problem]) -> Iterator[Problem]:
    """Yield the last problems, which are probes and not learned, and then random ones of the others, without end."""
    yield from shown[-PROBES:]
    rng = random.Random(0)
    while True:
        yield from rng.sample(shown[:-PROBES], PROBLEMS_PER_STEP)


def make_data(folder: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Write the model to ``folder/model`` and the tasks to ``folder/tasks.jsonl``. They share no problem."""
    tokenizer = make_tokenizer(CHARACTERS, marks=(USER, MODEL, TOOL), chat_template=TEMPLATE)
    model = new_model(tokenizer, context=96, seed=seed)
    listed = problems(seed)
    taken, share = imitate(
        model,
        tokenizer,
        map(conversation, shown_problems(listed[TASKS:])),
        enough=ENOUGH,
        max_steps=steps,
        batch=PROBLEMS_PER_STEP,
        probes=PROBES,
    )
    print(f"{taken} supervised steps: {share:.0%} of other problems solved")
    save_model(model, tokenizer, folder / "model")
    with (folder / "tasks.jsonl").open("w", encoding="utf-8") as file:
        for a, operator, b in listed[:TASKS]:
            file.write(json.dumps({"question": f"{a}{operator}{b}", "answer": answer_of((a, operator, b))}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/tools-data"))
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and problems (default: %(default)s)")
    arguments = parser.parse_args()
    make_data(arguments.folder, arguments.seed)
    print(f"Model and tasks are in {arguments.folder}")


if __name__ == "__main__":
    main()
