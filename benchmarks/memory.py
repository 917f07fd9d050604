"""Measures the memory of every role over a long run: is it flat?

Starts ``rft run``, samples the resident set of each role's process, and ends the run after the given time. Prints the
values minute by minute, and the growth from the first full minute to the last.

    python benchmarks/memory.py --minutes 10
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import psutil
import typer
from last_stage import write_reinforcement
from rich.console import Console
from rich.progress import track
from rich.table import Table

RFT = str(Path(sys.executable).with_name("rft"))
ROLES = ("conductor", "explorer", "processor", "trainer", "archiver")


def resident_mb(launcher: int) -> dict[str, float]:
    """Return the MiB of the launcher and of each of its child processes, by role."""
    sizes: dict[str, float] = defaultdict(float)
    parent = psutil.Process(launcher)
    for process in (parent, *parent.children(recursive=True)):
        try:
            arguments, size = process.cmdline(), process.memory_info().rss / 2**20
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        role = next((name for name in ROLES if name in arguments), None)
        sizes["launcher" if process == parent else role or "broker"] += size
    return sizes


def main(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration to run; by default the quickstart's reinforcement.")
    ] = None,
    minutes: Annotated[int, typer.Option(min=2, help="How long to watch.")] = 10,
) -> None:
    """Print resident memory of every role, minute by minute."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="rft-memory-") as folder:
        config = config or write_reinforcement(Path(folder))
        command = [RFT, "run", str(config), "--plain", "--run.folder", folder, "--trainer.steps", "1000000"]
        run = subprocess.Popen([*command, "--eval.tasks", "0"], stdout=subprocess.DEVNULL)
        try:
            for _ in track(range(minutes), description="watching"):
                time.sleep(60)
                if run.poll() is not None:
                    raise SystemExit(f"the run ended early with exit code {run.returncode}")
                samples.append(resident_mb(run.pid))
        finally:
            # The second signal ends it at once. The report of this run is not needed.
            run.send_signal(signal.SIGTERM)
            time.sleep(5)
            run.send_signal(signal.SIGTERM)
            run.wait()
    table = Table(title=f"resident memory in MiB, {config}")
    table.add_column("role")
    for minute in range(1, minutes + 1):
        table.add_column(f"{minute} min", justify="right")
    table.add_column("growth", justify="right")
    for role in sorted(samples[-1]):
        sizes = [sample.get(role, 0.0) for sample in samples]
        table.add_row(role, *(f"{size:.0f}" for size in sizes), f"{sizes[-1] - sizes[0]:+.0f}")
    Console(width=200).print(table)


if __name__ == "__main__":
    typer.run(main)
