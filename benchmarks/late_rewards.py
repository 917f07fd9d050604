"""Measures what ``processor.external.pacing`` gives when rewards come late.

Runs the quickstart's reinforcement several times for the same number of steps. Each group waits for an external reward.
In a part of the groups, chosen by their numbers, it comes several seconds late. Prints the groups that were trained a
second, and how many experiences the trainer dropped as stale. It asserts nothing.

    python benchmarks/late_rewards.py --steps 30 --late-s 5
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from last_stage import write_reinforcement
from rich.console import Console
from rich.table import Table

from producers.rewards import RewardProducer
from rft.config import Config
from rft.config_sources import load_config
from rft.log.reader import EventReader
from schemas.events import Experience

RFT = str(Path(sys.executable).with_name("rft"))
SOURCE = "judge"


class LateJudge:
    """Gives each train experience the reward 0, at once or late, in a thread of its own."""

    def __init__(self, resolved: Path, late_s: float, late_of_ten: int) -> None:
        """``resolved`` is the file where `rft run` writes the configuration with the broker's address."""
        self._resolved = resolved
        self._late_s = late_s
        self._late_of_ten = late_of_ten
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._judge)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _judge(self) -> None:
        config: Config | None = None
        while config is None and not self._stop.is_set():
            time.sleep(0.5)
            if self._resolved.exists():
                config = load_config(self._resolved)
        if config is None:
            return
        due: list[tuple[float, str]] = []
        with EventReader(config, "judge", ["experiences"]) as reader, RewardProducer(config) as rewards:
            while not self._stop.is_set():
                for event in reader.poll(0.05):
                    one = event.record(Experience)
                    if one.split == "train":
                        late = one.number % 10 < self._late_of_ten
                        heapq.heappush(due, (time.monotonic() + late * self._late_s, one.experience_id))
                while due and due[0][0] <= time.monotonic():
                    rewards.send(heapq.heappop(due)[1], 0.0, source=SOURCE)


def measure(
    config: Path, steps: int, groups: int, late_s: float, late_of_ten: int, pacing: str, folder: Path
) -> dict[str, Any]:
    """Run once and return the run's report."""
    name = f"late-{late_of_ten}-{pacing}"
    settings = {
        "run.folder": folder,
        "run.name": name,
        "trainer.steps": steps,
        "trainer.groups_per_step": groups,
        "eval.tasks": 0,
        "processor.external.required": f'["{SOURCE}"]',
        "processor.external.pacing": pacing,
    }
    command = [RFT, "run", str(config), "--plain"]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    judge = LateJudge(folder / name / "config.resolved.toml", late_s, late_of_ten)
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        judge.stop()
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout[-2000:]}")
    report: dict[str, Any] = json.loads((folder / name / "report.json").read_text())
    return report


def main(
    steps: Annotated[int, typer.Option(help="Gradient steps of each run.")] = 30,
    groups: Annotated[int, typer.Option(help="Groups of a step.")] = 8,
    late_s: Annotated[float, typer.Option(help="Seconds by which a late reward comes late.")] = 5.0,
    parts: Annotated[str, typer.Option(help="How many of ten groups have late rewards, comma-separated.")] = "2,10",
) -> None:
    """Print both ways of pacing side by side."""
    console = Console(width=110)
    table = Table(title=f"quickstart, {steps} steps of {groups} groups; late rewards come {late_s:g} s late")
    for column in ("late groups", "pacing", "training s", "groups/s", "dropped as stale", "staleness mean", "max"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="rft-late-") as name:
        folder = Path(name)
        config = write_reinforcement(folder)
        for late_of_ten in (int(text) for text in parts.split(",")):
            for pacing in ("hold", "free"):
                with console.status(f"{late_of_ten} of 10 late, {pacing}"):
                    report = measure(config, steps, groups, late_s, late_of_ten, pacing, folder)
                seconds = report["trainer"]["training_s"]
                table.add_row(
                    f"{late_of_ten} of 10",
                    pacing,
                    f"{seconds:.1f}",
                    f"{steps * groups / seconds:.1f}",
                    str(report["experiences"]["dropped_by_trainer"].get("stale", 0)),
                    f"{report['staleness']['mean']:.2f}",
                    str(report["staleness"]["max"]),
                )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
