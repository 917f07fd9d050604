"""Compares synchronous, one-step-off and asynchronous training, which differ in ``trainer.max_staleness`` alone.

Runs the same configuration for the same number of steps with bounds of 0, 1 and 4. Prints wall time, the trainer's idle
share and staleness from each run's report. It asserts nothing.

    python benchmarks/modes.py --steps 100
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from last_stage import write_reinforcement
from rich.console import Console
from rich.table import Table

RFT = str(Path(sys.executable).with_name("rft"))


def measure(config: Path, steps: int, max_staleness: int, folder: Path) -> dict[str, Any]:
    """Run once without evaluation and return the run's report."""
    name = f"staleness-{max_staleness}"
    command = [RFT, "run", str(config), "--plain", "--run.folder", str(folder), "--run.name", name]
    command += ["--trainer.steps", str(steps), "--trainer.max_staleness", str(max_staleness), "--eval.tasks", "0"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout[-2000:]}")
    report: dict[str, Any] = json.loads((folder / name / "report.json").read_text())
    return report


def main(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration to run; by default the quickstart's reinforcement.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Gradient steps of each run.")] = 100,
    bounds: Annotated[str, typer.Option(help="Staleness bounds, comma-separated.")] = "0,1,4",
) -> None:
    """Print the three modes side by side."""
    console = Console(width=100)
    table = Table(title=f"{config or 'quickstart'}, {steps} steps each")
    for column in ("max_staleness", "training s", "relative", "trainer idle", "step ms", "staleness mean", "max"):
        table.add_column(column, justify="right")
    first: float | None = None
    with tempfile.TemporaryDirectory(prefix="rft-modes-") as folder:
        config = config or write_reinforcement(Path(folder))
        for bound in (int(text) for text in bounds.split(",")):
            with console.status(f"max_staleness = {bound}"):
                report = measure(config, steps, bound, Path(folder))
            training_s = report["trainer"]["training_s"]
            first = first or training_s
            table.add_row(
                str(bound),
                f"{training_s:.1f}",
                f"{training_s / first:.2f}",
                f"{report['trainer']['idle_share']:.0%}",
                f"{1000 * report['trainer']['step_s']:.0f}",
                f"{report['staleness']['mean']:.2f}",
                str(report["staleness"]["max"]),
            )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
