"""Runs a whole pipeline by the ``rft run`` command, and reads its log afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rft.config import Config
from rft.config_sources import load_config
from rft.config_toml import to_toml
from rft.errors import DecodeError
from rft.log.events import Event
from rft.log.reader import EventReader
from rft.stream.fence import unfenced_entries
from schemas.events import Experience, ScoredExperience, Task, TrainingStep, WeightVersion

RFT = str(Path(sys.executable).with_name("rft"))
ROLES = ("conductor", "explorer", "processor", "trainer")


class Pipeline:
    """One ``rft run``: start it, kill its roles, wait for it, read its report."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / "pipeline.toml"
        self.path.write_text(to_toml(settings))
        self.config: Config = load_config(self.path)
        self.output = folder / "rft-run.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [RFT, "run", str(self.path), "--plain"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def wait(self, timeout_s: float) -> int:
        """Return the exit code. A run that takes too long is stopped and fails with what it printed."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"the run did not end within {timeout_s} s:\n{self.tail()}") from None

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tail(self, characters: int = 6000) -> str:
        """Return the last output of the run and its roles, for a failing test's message."""
        parts = [self.output.read_text(errors="replace")[-characters:]]
        for log in sorted((self.config.run.path / "logs").glob("*.log")):
            parts.append(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(parts)

    def role(self, name: str) -> list[psutil.Process]:
        """Return the live processes of one role."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                arguments = child.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if name in arguments and any("rft" in word or "infra" in word for word in arguments[:4]):
                found.append(child)
        return found

    def kill(self, name: str) -> int:
        """Kill the first process of a role with SIGKILL, and return its pid."""
        victim = self.role(name)[0]
        victim.send_signal(signal.SIGKILL)
        return victim.pid

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, f"the run ended while waiting for {what}:\n{self.tail()}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s:\n{self.tail()}"
            time.sleep(0.2)

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.config.run.path / "report.json").read_text())
        return report


def settings(folder: Path, model: Path, bootstrap_servers: str | None = None, **sections: Any) -> dict[str, Any]:
    """Return a small pipeline's configuration: tiny groups, few steps. ``sections`` are merged over it."""
    broker: dict[str, Any] = {"kind": "embedded"}
    if bootstrap_servers:
        broker = {"kind": "external", "bootstrap_servers": bootstrap_servers}
    base: dict[str, Any] = {
        "run": {"name": "test", "folder": str(folder / "runs")},
        "broker": broker,
        "log": {"namespace": f"e2e-{folder.name}"[:80], "partitions": 3},
        "tasks": {
            "source": "reasoning_gym:spell_backward",
            "options": {"min_word_len": 3, "max_word_len": 6},
            "prompt_template": "{word}>",
        },
        "rollout": {"samples": 4, "max_tokens": 8, "deadline_s": 20},
        "policy": {"model": str(model)},
        "processor": {"group_deadline_s": 20, "rewards": [{"function": "exact_match"}]},
        "trainer": {"steps": 12, "groups_per_step": 4, "learning_rate": 1e-3, "checkpoint_interval": 5},
        "eval": {"tasks": 40},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return base


@dataclass
class Log:
    """Everything that a run wrote, decoded."""

    tasks: list[Task]
    experiences: list[Experience]
    ready: dict[tuple[int, int], ScoredExperience]
    steps: list[TrainingStep]
    weights: list[WeightVersion]
    dead_letters: list[Event]

    @property
    def lineage(self) -> list[TrainingStep]:
        """The gradient steps that the surviving weights went through, in order."""
        by_number = {step.step: step for step in self.steps if step.kind == "step"}
        return [by_number[number] for number in sorted(by_number)]


def read_log(config: Config, junk: Container[tuple[str, int, int]] = ()) -> Log:
    """Read what a run wrote. ``junk`` names events (entity, partition, offset) that a test wrote to disturb it."""
    entities = ("tasks", "experiences", "ready", "steps", "weights")
    events = {
        entity: [one for one in _read(config, entity) if (entity, one.partition, one.offset) not in junk]
        for entity in entities
    }
    return Log(
        tasks=[event.record() for event in events["tasks"]],
        experiences=[event.record(Experience) for event in events["experiences"] if _is_experience(event)],
        ready={(event.partition, event.offset): event.record() for event in events["ready"]},
        steps=list(unfenced_entries(event.record(TrainingStep) for event in events["steps"])),
        weights=[event.record() for event in events["weights"]],
        dead_letters=list(_read(config, "dlq")),
    )


def _is_experience(event: Event) -> bool:
    try:
        event.record(Experience)
    except DecodeError:
        return False
    return True


def _read(config: Config, entity: str) -> Iterator[Event]:
    reader = EventReader(config, "e2e-reader", [entity], isolation_level="read_committed")
    try:
        end = reader.end_offsets()
        while not reader.caught_up(end):
            yield from reader.poll(1.0)
    finally:
        reader.close()
