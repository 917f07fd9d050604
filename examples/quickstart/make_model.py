"""Makes the quickstart's model after an imitation like its first stage, in one process and in seconds. Other examples
begin with this model.

Reinforcement needs a policy that is right now and then. So the model imitates reversed words of the training split
until it spells about a third of other training words right. It never sees held-out words.

    python examples/quickstart/make_model.py runs/quickstart-model
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from rft.config_sources import load_config
from rft.model_files import character_model
from rft.model_files.character_model import Parts, imitate, new_model, save_model
from rft.tasks.base import TaskItem, TaskSource
from rft.tasks.splits import open_sources

CONFIG = Path(__file__).with_name("quickstart.toml")
CHARACTERS = string.ascii_letters + ">"
EOS = "<eos>"
MAX_STEPS = 200
WORDS_PER_STEP = 64
ENOUGH = 0.33
"""Imitation ends when this share of the probe words is spelled right. Reinforcement does the rest."""
PROBES = 512


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token for each character."""
    return character_model.make_tokenizer(CHARACTERS, end=EOS)


def example_of(item: TaskItem) -> Parts:
    """Return a prompt with its answer, which is learned."""
    return [(item.prompt, False), (f"{item.answer}{EOS}", True)]


def batches(tasks: TaskSource) -> Iterator[list[TaskItem]]:
    """Yield endless batches of training tasks. Half of each batch are words with a capital letter.

    Only one word in six has a capital, so without this each capital letter would be too rare in these few steps.
    """
    words = (tasks[number] for number in count(PROBES))
    names = (item for item in (tasks[number] for number in count(100_000)) if item.prompt != item.prompt.lower())
    while True:
        yield [*islice(words, WORDS_PER_STEP // 2), *islice(names, WORDS_PER_STEP // 2)]


def warm_start(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: TaskSource, max_steps: int, progress: Progress
) -> None:
    """Take supervised steps on ``tasks``: ``max_steps`` at most, until the share ``ENOUGH`` of probe words is right."""
    bar = progress.add_task("supervised steps", total=ENOUGH)

    def show(step: int, right: float) -> None:
        progress.update(bar, completed=right, description=f"{step} supervised steps: {right:.0%} spelled right")

    items = chain((tasks[number] for number in range(PROBES)), chain.from_iterable(batches(tasks)))
    imitate(
        model,
        tokenizer,
        map(example_of, items),
        enough=ENOUGH,
        max_steps=max_steps,
        batch=WORDS_PER_STEP,
        probes=PROBES,
        report=show,
    )


def make_model(folder: Path, steps: int = MAX_STEPS, seed: int | None = None) -> None:
    """Write config, tokenizer and weights to ``folder``, after at most ``steps`` supervised steps.

    The default of ``seed`` is that of the run.
    """
    config = load_config(CONFIG)
    tokenizer = make_tokenizer()
    model = new_model(tokenizer, seed=config.run.seed if seed is None else seed)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        warm_start(model, tokenizer, open_sources(config).train, steps, progress)
    save_model(model, tokenizer, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/quickstart-model"))
    parser.add_argument("--steps", type=int, default=MAX_STEPS, help="most supervised steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of the weights (default: run.seed of quickstart.toml)")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.steps, arguments.seed)
    print(f"The model is in {arguments.folder}")


if __name__ == "__main__":
    main()
