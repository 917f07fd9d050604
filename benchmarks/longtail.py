"""Measures what rollouts of very different duration cost, by ``trainer.max_staleness`` and ``buffer.too_stale``.

The workflow of this file lets each rollout last as long as a log-normal distribution says, and write in proportion.
The median takes ``--median-s``, one in a hundred takes 16 times that. The rest is the real pipeline (`rft run`) with a
small model of random weights. Prints the seconds of a step, the share of rollouts that were dropped as too stale, their
lengths and durations beside those that were trained, and the trainer's idle share. It asserts nothing.

    python benchmarks/longtail.py --bounds 0,1,4,16 --steps 20,40,80,80
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from last_stage import QUICKSTART, reinforcement
from rich.console import Console
from rich.table import Table

from rft.config_toml import masked, to_toml
from rft.policy.base import Policy, Sampling
from rft.workflows.base import Trajectory, single_turn
from schemas.events import Task

RFT = str(Path(sys.executable).with_name("rft"))
MEDIAN_S = "LONGTAIL_MEDIAN_S"
SIGMA = math.log(16) / 2.326
"""One in a hundred draws of a log-normal distribution is exp(2.326 σ) times its median."""
MEDIAN_TOKENS = 8


def even_length(response: str, answer: str | None) -> float:
    """Return 1 for an answer of an even length, else 0: rewards that differ within nearly every group."""
    return float(len(response) % 2 == 0)


async def slow_answer(task: Task, policy: Policy, sampling: Sampling) -> Trajectory:
    """Answer once, with as many tokens and after as many seconds as this rollout draws. A workflow."""
    factor = random.Random(sampling.seed).lognormvariate(0.0, SIGMA)
    tokens = max(1, min(round(MEDIAN_TOKENS * factor), sampling.max_tokens))
    trajectory = await single_turn(task, policy, replace(sampling, max_tokens=tokens))
    await asyncio.sleep(float(os.environ[MEDIAN_S]) * factor)
    return trajectory


def write_config(folder: Path) -> Path:
    """Write a configuration and its model into ``folder``. The model's weights are random, so it seldom stops early."""
    sys.path.append(str(QUICKSTART))
    from make_model import make_tokenizer

    from rft.model_files.character_model import new_model

    model, tokenizer = folder / "model", make_tokenizer()
    tokenizer.save_pretrained(model)
    new_model(tokenizer, seed=0).save_pretrained(model)
    config = folder / "longtail.toml"
    config.write_text(to_toml(masked(reinforcement(model))), encoding="utf-8")
    return config


def measure(config: Path, folder: Path, settings: dict[str, Any], median_s: float) -> dict[str, Any]:
    """Run once and return the run's report."""
    command = [RFT, "run", str(config), "--plain"]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), MEDIAN_S: str(median_s)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout[-2000:]}")
    report: dict[str, Any] = json.loads((folder / settings["run.name"] / "report.json").read_text())
    return report


def main(
    bounds: Annotated[str, typer.Option(help="Values of trainer.max_staleness, comma-separated.")] = "0,1,4,16",
    steps: Annotated[str, typer.Option(help="Gradient steps for each of them.")] = "20,40,80,80",
    spare: Annotated[int, typer.Option(help="Spare rollouts of each group.")] = 0,
    choices: Annotated[str, typer.Option(help="Values of buffer.too_stale for each of them.")] = "drop",
    groups: Annotated[int, typer.Option(help="Groups of a step.")] = 8,
    samples: Annotated[int, typer.Option(help="Rollouts of a group.")] = 8,
    median_s: Annotated[float, typer.Option(help="Seconds of the median rollout.")] = 0.25,
) -> None:
    """Print one row for each run."""
    console = Console(width=130)
    title = f"{groups} groups of {samples} a step, {spare} spare; median {median_s:g} s, 1 % above {16 * median_s:g} s"
    table = Table(title=f"{title}; load at the start {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for column in (
        "max_staleness",
        "too_stale",
        "steps",
        "s a step",
        "dropped",
        "cancelled",
        "tokens, trained / dropped",
        "seconds, trained / dropped",
        "trainer idle",
        "staleness mean / max",
    ):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="rft-longtail-") as name:
        folder = Path(name)
        config = write_config(folder)
        rows = zip(bounds.split(","), steps.split(","), strict=True)
        for (bound, count), choice in itertools.product(rows, choices.split(",")):
            settings = {
                "run.folder": folder,
                "run.name": f"bound-{bound}-{choice}",
                "trainer.steps": count,
                "trainer.groups_per_step": groups,
                "trainer.max_staleness": bound,
                "buffer.too_stale": choice,
                "rollout.samples": samples,
                "rollout.spare": spare,
                "rollout.max_tokens": 56,
                "rollout.max_in_flight": 4096,
                "rollout.workflow": "longtail:slow_answer",
                "processor.rewards": '[{ function = "longtail:even_length" }]',
                "eval.tasks": 0,
            }
            with console.status(f"max_staleness = {bound}, {choice}"):
                report = measure(config, folder, settings, median_s)
            tail, trainer, staleness = report["long_tail"], report["trainer"], report["staleness"]
            table.add_row(
                bound,
                choice,
                count,
                f"{trainer['training_s'] / int(count):.2f}",
                f"{tail['dropped_share']:.1%}",
                f"{report['explorers']['cancelled']:.0f}",
                _pair(tail, "tokens_mean", ".1f"),
                _pair(tail, "seconds_mean", ".2f"),
                f"{trainer['idle_share']:.0%}",
                f"{staleness['mean']:.2f} / {staleness['max']}",
            )
    console.print(table)


def _pair(tail: dict[str, Any], name: str, form: str) -> str:
    values = [tail[part][name] for part in ("trained", "dropped")]
    return " / ".join("–" if value is None else format(value, form) for value in values)


if __name__ == "__main__":
    typer.run(main)
