"""Trains the quickstart's policy by each algorithm for a short run: does it learn, and does it stay finite?

Everything runs in one process over the real engine. Each algorithm gets the samples that it is meant to learn from:
those of the policy itself, of weights some steps old, of the initial weights (offline), an expert's answers,
preferences, or those of a better model. The script prints the mean reward of held-out words before and after, sampled
as in training (temperature 1) and greedily, and the mean reward of the samples in the first and the last tenth of the
steps. It asserts nothing.

    python benchmarks/algorithms.py --steps 60
    python benchmarks/algorithms.py --only grpo,dpo
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from lab import (
    Lab,
    Outcome,
    Source,
    Task,
    demonstrated,
    graded,
    guided,
    lagging,
    mixed,
    online,
    preferred,
    replayed,
    train,
)
from last_stage import quickstart_model, reinforcement
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rft.policy.loading import load_tokenizer
from rft.tasks.base import TaskSource
from rft.tasks.splits import open_sources

HELD_OUT = 500
TEACHER_STEPS = 150
GENTLE = {"learning_rate": 1e-4}
"""A quarter of the quickstart's, for four updates a step and for losses without a clip around the initial weights."""
SEVERAL = {"minibatches": 4, **GENTLE}
REPLAYED = replayed(80)
"""2,560 words with 4 answers each. One answer in nine is right; with 640 words much is learned by heart."""
WEAK = {"loss_options": {"tau": 0.02}}
"""At 0.1 the pull towards the policy that sampled undoes most of the gain."""

Run = tuple[str, Source, str, dict[str, Any], dict[str, Any]]
"""Algorithm, source, the source's name, further fields of [algorithm] and of [trainer]."""

RUNS: list[Run] = [
    ("grpo", online, "online", {}, {}),
    ("dr_grpo", online, "online", {}, {}),
    ("dapo", online, "online", {}, {}),
    ("gspo", online, "online", {}, SEVERAL),
    ("cispo", online, "online", {}, SEVERAL),
    ("sapo", online, "online", {}, SEVERAL),
    ("rloo", online, "online", {}, {}),
    ("reinforce_pp", online, "online", {"kl": "k1", "kl_coef": 1e-3, "kl_in": "reward"}, {}),
    ("reinforce_pp_baseline", online, "online", {}, {}),
    ("ppo", online, "online", {}, SEVERAL),
    ("decoupled_ppo", lagging(4), "3 steps old", {}, SEVERAL),
    ("grpo", lagging(4), "3 steps old", {"correction": "tis"}, {}),
    ("grpo", lagging(4), "3 steps old", {"correction": "mis"}, {}),
    ("topr", lagging(4), "3 steps old", {}, {}),
    ("rec", lagging(4), "3 steps old", {}, {}),
    ("opmd", lagging(4), "3 steps old", WEAK, {}),
    ("asymre", lagging(4), "3 steps old", {}, {}),
    ("topr", REPLAYED, "replayed", {}, {}),
    ("rec", REPLAYED, "replayed", {}, {}),
    ("opmd", REPLAYED, "replayed", WEAK, {}),
    ("asymre", REPLAYED, "replayed", {}, {}),
    # One sample in nine is good. The paper asks for weights in proportion to how rare each kind is.
    ("kto", REPLAYED, "replayed", {"loss_options": {"beta": 0.5, "undesirable": 0.1}}, {}),
    ("sft", demonstrated, "demonstrations", {}, {}),
    ("dpo", preferred, "preferences", {"loss_options": {"beta": 0.5}}, GENTLE),
    ("dpo", online, "online pairs", {"loss_options": {"beta": 0.5}}, GENTLE),
    ("mix", mixed, "online + demonstrations", {}, {}),
    ("chord", mixed, "online + demonstrations", {"demonstration_decay": 40}, {}),
    ("distill", online, "online, teacher", {}, {}),
    ("grpo", online, "online, teacher", {"teacher_coef": 0.1}, {}),
    ("grpo", online, "online, teacher", {"teacher_coef": 0.1, "teacher_term": "jsd"}, {}),
    ("grpo", online, "online, teacher", {"teacher_coef": 0.1, "teacher_term": "k2"}, {}),
    ("ppo", online, "online", {"value_warmup": 10}, SEVERAL),
    ("grpo", graded, "online, two rewards", {}, {}),
    ("gdpo", graded, "online, two rewards", {}, {}),
    ("luffy", guided, "online, guided", {}, {}),
]
SHOWN = ("correction", "teacher_coef", "teacher_term", "value_warmup")
"""Fields of ``[algorithm]`` that the table names."""


def quickstart(model: Path) -> Lab:
    """Return the lab with the quickstart's policy, words and settings."""
    config = reinforcement(model)
    tokenizer = load_tokenizer(model)
    sources = open_sources(config)
    end = int(tokenizer.eos_token_id)

    def tasks(source: TaskSource, size: int) -> list[Task]:
        items = [source[number] for number in range(size)]
        return [
            Task(tuple(tokenizer.encode(item.prompt)), (*tokenizer.encode(item.answer or ""), end)) for item in items
        ]

    names = ("learning_rate", "betas", "warmup_steps")
    return Lab(
        model=model,
        train=tasks(sources.train, 4000),
        held_out=tasks(sources.held_out, HELD_OUT),
        reward=lambda task, tokens: float(tuple(tokens) == task.answer),
        end_tokens=frozenset({end}),
        max_tokens=config.rollout.max_tokens,
        groups=config.trainer.groups_per_step,
        samples=config.rollout.samples,
        trainer={name: getattr(config.trainer, name) for name in names},
    )


def train_teacher(lab: Lab, folder: Path, steps: int) -> Outcome:
    """Train a better model by imitation and write it to ``folder``."""
    shutil.copytree(lab.model, folder)
    bigger = replace(lab, groups=64)
    return train(bigger, demonstrated, {"name": "sft"}, steps, save=folder / "model.safetensors")


def main(
    steps: Annotated[int, typer.Option(help="Gradient steps of each run.")] = 60,
    only: Annotated[str, typer.Option(help="Algorithms to run, comma-separated; all by default.")] = "",
    source: Annotated[str, typer.Option(help="Run only those that learn from this source.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print the result of each algorithm."""
    torch.set_num_threads(threads)
    chosen = [run for run in RUNS if (not only or run[0] in only.split(",")) and source in ("", run[2])]
    table = Table(title=f"quickstart's policy, {steps} steps each, {HELD_OUT} held-out words")
    for column in (
        "algorithm",
        "learns from",
        "reward",
        "after",
        "learned",
        "greedy",
        "trained on",
        "finite",
        "ms a step",
    ):
        table.add_column(column, justify="left" if column in ("algorithm", "learns from") else "right")
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="rft-algorithms-") as scratch:
        model, teacher = Path(scratch) / "model", Path(scratch) / "teacher"
        lab = quickstart(quickstart_model(model))
        if any("teacher" in source_name for _, _, source_name, *_ in chosen):
            outcome = train_teacher(lab, teacher, TEACHER_STEPS)
            console.print(f"teacher: {TEACHER_STEPS} supervised steps, {outcome.greedy:.1%} of held-out words right")
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("", total=len(chosen) * steps)
            for name, samples, source_name, algorithm, trainer in chosen:
                taught = {"teacher": str(teacher)} if "teacher" in source_name else {}
                fields = {"name": name, **algorithm, **taught}
                label = name + "".join(f" {key}={value}" for key, value in algorithm.items() if key in SHOWN)
                progress.update(bar, description=f"{label}, {source_name}")
                outcome = train(lab, samples, fields, steps, trainer=trainer, on_step=lambda _: progress.advance(bar))
                cells = _cells(outcome)
                table.add_row(label, source_name, *cells)
                if not console.is_terminal:
                    console.print(label, source_name, *cells)
    console.print(table)


def _cells(outcome: Outcome) -> list[str]:
    # Upper bound: twice the standard error of the difference of two means over the same words.
    noise = 2 * (0.5 / HELD_OUT) ** 0.5
    gain = outcome.after - outcome.before
    learned = "yes" if gain > noise else "no" if gain < -noise else "within noise"
    trained_on = f"{outcome.first:.2f} to {outcome.last:.2f}"
    return [
        f"{outcome.before:.1%}", f"{outcome.after:.1%}", learned, f"{outcome.greedy:.1%}", trained_on,
        "yes" if outcome.finite else "NO", f"{outcome.step_ms:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
